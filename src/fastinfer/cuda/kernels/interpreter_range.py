# SPDX-License-Identifier: Apache-2.0
"""Triton 3.6's interpreter under numpy 2.4: a loop bound held in a tensor is an array of one element there, which numpy no
longer turns into an int. Imported by kernels with such loops; does nothing where kernels are compiled."""

from __future__ import annotations

from typing import Any

from fastinfer.cuda.device import INTERPRET


def _install() -> None:
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


if INTERPRET:
    _install()
