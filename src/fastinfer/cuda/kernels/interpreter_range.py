# SPDX-License-Identifier: Apache-2.0
"""Where Triton 3.6's interpreter differs from the compiler; does nothing where kernels are compiled.

* Under numpy 2.4 a loop bound held in a tensor is an array of one element, which numpy no longer turns into an int.
* float32 becomes bfloat16 by cutting bits off, where the device rounds to nearest even.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastinfer.cuda.device import INTERPRET


def _install() -> None:
    import triton.language as tl
    from triton.runtime import interpreter

    patch, convert = interpreter._patch_lang_tensor, interpreter._convert_float

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def rounded(x: np.ndarray, source: Any, target: Any, mode: Any) -> np.ndarray:
        if mode is None and source == tl.float32 and target == tl.bfloat16:
            return (
                torch.from_numpy(np.array(x, np.float32)).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
            )
        return convert(x, source, target, mode)

    interpreter._patch_lang_tensor, interpreter._convert_float = patched, rounded


if INTERPRET:
    _install()
