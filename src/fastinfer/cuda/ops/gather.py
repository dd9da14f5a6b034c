# SPDX-License-Identifier: Apache-2.0
"""Rows of tables, and gathers."""

from __future__ import annotations

from fastinfer.cuda.context import Binder

BINDERS: dict[tuple[str, str], Binder] = {}
