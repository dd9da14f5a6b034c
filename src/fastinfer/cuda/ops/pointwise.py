# SPDX-License-Identifier: Apache-2.0
"""Pointwise programs and single pointwise operators."""

from __future__ import annotations

from fastinfer.cuda.context import Binder

BINDERS: dict[tuple[str, str], Binder] = {}
