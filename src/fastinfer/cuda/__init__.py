# SPDX-License-Identifier: Apache-2.0
"""The GPU half: the same Program and the same passes, on one CUDA device. Needs torch and triton (`fastinfer[gpu]`)."""
