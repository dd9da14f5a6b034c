# SPDX-License-Identifier: Apache-2.0
"""Everything here runs without a GPU, kernels by Triton's interpreter; what needs a device is marked `gpu`."""

import os

os.environ.setdefault("FASTINFER_CUDA", "interpret")
os.environ["TRITON_INTERPRET"] = "1"
