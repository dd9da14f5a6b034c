# SPDX-License-Identifier: Apache-2.0
"""Layer, RMS, group norms and softmax, with what is added before them."""

from __future__ import annotations

from fastinfer.cuda.context import Binder

BINDERS: dict[tuple[str, str], Binder] = {}
