# SPDX-License-Identifier: Apache-2.0
"""Which configuration a kernel runs with: raced on this device, shipped with the package, or the family's default."""

from __future__ import annotations

from typing import Any

from fastinfer.cuda.context import Family


class Tuner:
    def choose(self, family: Family, problem: Any) -> Any:
        return family.default(problem)
