# SPDX-License-Identifier: Apache-2.0
"""Reductions."""

from __future__ import annotations

from fastinfer.cuda.context import Binder

BINDERS: dict[tuple[str, str], Binder] = {}
