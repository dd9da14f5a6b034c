# SPDX-License-Identifier: Apache-2.0
"""Matrix products with their epilogues."""

from __future__ import annotations

from fastinfer.cuda.context import Binder

BINDERS: dict[tuple[str, str], Binder] = {}
