# SPDX-License-Identifier: Apache-2.0
"""Where winners of tuning are kept: one small JSON file per machine, build and instruction set, shared by all processes of a user."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fastinfer import _core

FORMAT = 1
ENTRIES = 4096  # of one file; the least recently used go first
FILES = 8  # of other machines and builds, the oldest go first


def folder() -> Path:
    """$FASTINFER_CACHE, else fastinfer in the user's cache directory."""
    if given := os.environ.get("FASTINFER_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastinfer"


@cache
def machine() -> str:
    """The processor as its kernel names it, its caches, and the cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    keys = ("vendor_id", "cpu family", "model", "model name", "stepping")
    facts = dict(reversed([(k.strip(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]))
    return "; ".join([*(facts.get(k, "?") for k in keys), str(_core.caches()), f"{_core.usable_cores()} cores"])


@cache
def build() -> str:
    """The native code itself: other kernels, other winners."""
    return hashlib.sha256(Path(_core.__file__).read_bytes()).hexdigest()[:16]


class TuningCache:
    """problem → the label of the candidate that won. A file that cannot be read is ignored with a warning, one that
    cannot be written too: tuning then is repeated next time."""

    def __init__(self, isa: str, where: Path | None = None, device: Mapping[str, str] | None = None) -> None:
        """device: what winners depend on where it is not this processor and its native code: a GPU's name, driver and build."""
        self.about = {"format": FORMAT, **(device or {"machine": machine(), "build": build(), "isa": isa})}
        name = hashlib.sha256(json.dumps(self.about).encode()).hexdigest()[:16]
        self.path = (where or folder()) / f"tuning-{name}.json"

    def get(self, problems: Iterable[str]) -> dict[str, str]:
        """What is known of these problems."""
        entries = self._read()
        return {p: entries[p][0] for p in problems if p in entries}

    def put(self, winners: Mapping[str, str]) -> None:
        """Adds winners to what other processes have put there in the meantime."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                entries = self._read()
                now = int(time.time())
                entries.update({problem: [label, now] for problem, label in winners.items()})
                kept = sorted(entries.items(), key=lambda e: -e[1][1])[:ENTRIES]
                self._write({**self.about, "entries": dict(kept)})
                self._drop_old_files()
        except OSError as error:
            warnings.warn(f"tuning is not kept: {error}", RuntimeWarning, stacklevel=2)

    def _read(self) -> dict[str, list[Any]]:
        try:
            data = json.loads(self.path.read_bytes())
            if {k: data[k] for k in self.about} != self.about:
                raise ValueError("it belongs to another machine or build")
            for label, used in data["entries"].values():
                if not isinstance(label, str) or not isinstance(used, int):
                    raise ValueError("an entry is not [label, time]")
            return dict(data["entries"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"'{self.path}' is ignored, it is not a tuning file: {reason}", RuntimeWarning, stacklevel=3)
            return {}

    def _write(self, data: dict[str, Any]) -> None:
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(data, separators=(",", ":")))
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def _drop_old_files(self) -> None:
        found = sorted(self.path.parent.glob("tuning-*.json"), key=lambda p: -p.stat().st_mtime)
        for old in found[FILES:]:
            if old != self.path:
                old.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time; readers need no lock, as a file is replaced whole."""
        with open(self.path.parent / "tuning.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
