# SPDX-License-Identifier: Apache-2.0
"""Products with int4 and int8 weights."""

from __future__ import annotations

from fastinfer.cuda.context import Binder

BINDERS: dict[tuple[str, str], Binder] = {}
