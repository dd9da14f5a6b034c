# SPDX-License-Identifier: Apache-2.0
"""Tables of configurations that the package brings, one file per chip in tuned/: made by tools/tune_gpu.py, read by the tuner."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1
KINDS = (
    "measured",
    "predicted",
)  # raced on the chip; taken from the families' cost models, which default() does by itself


@dataclass(frozen=True)
class Table:
    """kind: of all rows. about: what winners depend on (tuning.about: machine, driver, build, torch, triton). raced: candidates of a
    problem that took part, "all" or a number. winners: a problem's key → its configuration, as tuning.problem_key and
    config_text write them."""

    kind: str
    about: Mapping[str, str]
    date: str
    raced: str
    winners: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {**asdict(self), "winners": dict(sorted(self.winners.items()))}
        path.write_text(json.dumps(rows, indent=1) + "\n")


def file_name(device: str) -> str:
    """ "NVIDIA H200" → h200.json"""
    return device.lower().removeprefix("nvidia ").replace(" ", "-") + ".json"


def read(file: Any) -> Table | None:
    """file: a Path, or a resource of a package; None where there is none. Raises ValueError where it is no table."""
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    try:
        table = Table(**found)
    except TypeError as e:
        raise ValueError(f"'{file}' is not a table of configurations: {e}") from None
    strings = all(isinstance(k, str) and isinstance(v, str) for k, v in table.winners.items())
    if table.format != FORMAT or table.kind not in KINDS or not strings:
        raise ValueError(f"'{file}' is not a table of configurations of format {FORMAT}, {' or '.join(KINDS)}")
    return table


@functools.lru_cache(maxsize=4)
def shipped(device: str) -> Mapping[str, str]:
    """The rows for a chip, by problem; none for those that the package does not know. Rows of an older build are harmless: a problem
    that is no more is not asked for, and a configuration that is no candidate any more is passed over for the default."""
    table = read(importlib.resources.files("fastinfer.cuda") / "tuned" / file_name(device))
    return table.winners if table else {}
