# SPDX-License-Identifier: Apache-2.0
"""Generated kernels of Concat by name, for the compiler's process (sm90.py)."""

from fastinfer.cuda.kernels.movement_parts import kernel

three = kernel((16, 16, 16, 16, 16, 16), 16, True)
