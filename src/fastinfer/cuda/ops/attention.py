# SPDX-License-Identifier: Apache-2.0
"""Attention of dense and of packed batches."""

from __future__ import annotations

from fastinfer.cuda.context import Binder

BINDERS: dict[tuple[str, str], Binder] = {}
