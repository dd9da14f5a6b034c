# SPDX-License-Identifier: Apache-2.0
"""Transpose, Concat, Split, Slice, Expand, Pad."""

from __future__ import annotations

from fastinfer.cuda.context import Binder

BINDERS: dict[tuple[str, str], Binder] = {}
