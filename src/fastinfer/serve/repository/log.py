# SPDX-License-Identifier: Apache-2.0
"""What was live when, and by whom: one JSON object a line, appended and synced, never changed. The last line of a model
that says what is live is what is live.

Every line holds the sha256 of the line before it, so that a change of the past shows (:meth:`Log.verify`).
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository.directory import OWN
from fastinfer.serve.repository.durable import sync
from fastinfer.serve.repository.names import check_name, check_version

STABLE, CANARY = "stable", "canary"


@dataclass(frozen=True)
class Live:
    """aliases: name → version; requests that name no version go to `stable`, or where there is none to the highest loaded
    one. split: version → per cent of those requests that it takes. shadow: version → per cent that it gets a copy of."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    split: Mapping[str, float] = field(default_factory=dict)
    shadow: Mapping[str, float] = field(default_factory=dict)

    @property
    def stable(self) -> str:
        return self.aliases.get(STABLE, "")

    @property
    def versions(self) -> set[str]:
        return {*self.aliases.values(), *self.split, *self.shadow}

    def as_json(self) -> dict[str, Any]:
        return {"aliases": dict(self.aliases), "split": dict(self.split), "shadow": dict(self.shadow)}

    @staticmethod
    def of_json(value: Any) -> Live:
        aliases = {check_name(str(a), "alias"): check_version(str(v)) for a, v in value.get("aliases", {}).items()}
        split, shadow = (
            {check_version(v): _percent(p) for v, p in value.get(k, {}).items()} for k in ("split", "shadow")
        )
        if sum(split.values()) > 100:
            raise ServeError(Kind.INVALID_ARGUMENT, f"the split gives away {sum(split.values()):g} % of the requests")
        return Live(aliases, split, shadow)

    # What can be done to it; each gives the new state.

    def promote(self, version: str) -> Live:
        """All requests go to `version`; what was tried out ends."""
        return Live({**self._without(CANARY), STABLE: version})

    def canary(self, version: str, percent: float) -> Live:
        if version == self.stable:
            raise ServeError(Kind.INVALID_ARGUMENT, f"version {version} is the stable one")
        return replace(self, aliases={**self.aliases, CANARY: version}, split={version: _percent(percent)})

    def copied_to(self, version: str, percent: float) -> Live:
        return replace(self, shadow={version: _percent(percent)} if percent else {})

    def alias(self, name: str, version: str) -> Live:
        """version: empty to take the alias away."""
        check_name(name, "alias")
        return replace(self, aliases={**self._without(name), **({name: version} if version else {})})

    def settled(self) -> Live:
        """Without what was tried out."""
        return Live(self._without(CANARY))

    def _without(self, alias: str) -> dict[str, str]:
        return {a: v for a, v in self.aliases.items() if a != alias}


def _percent(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
        raise ServeError(Kind.INVALID_ARGUMENT, f"given {str(value)[:40]}; needed: per cent, from 0 to 100")
    return float(value)


@dataclass(frozen=True)
class Entry:
    """live: None for what changed nothing of it."""

    at: str
    by: str
    model: str
    action: str
    version: str = ""
    note: str = ""
    live: Live | None = None


def whoami() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container without a user
        return f"uid {os.getuid()}@{socket.gethostname()}"


class Log:
    """The log of a repository. Several processes and threads may read and write it."""

    def __init__(self, root: Path) -> None:
        self.path = root / OWN / "log.jsonl"
        self._entries: list[Entry] = []
        self._read = 0  # bytes
        self._last = b""  # the line that ends there
        self._reading = threading.Lock()  # two readers would count the same lines twice

    def entries(self, model: str = "") -> list[Entry]:
        """Oldest first; of one model or of all. Lines that are none of ours are passed over."""
        with self._reading:
            try:
                self._read_on()
            except FileNotFoundError:
                return []
            except OSError as e:
                raise ServeError(Kind.UNAVAILABLE, f"the log cannot be read: {e.strerror}") from e
            return [e for e in self._entries if not model or e.model == model]

    def _read_on(self) -> None:
        with open(self.path, "rb") as f:
            f.seek(self._read - len(self._last))
            new = f.read()
            if not new.startswith(self._last):  # another file, or a line that its writer took back
                self._entries, self._read, self._last = [], 0, b""
                f.seek(0)
                new = f.read()
        new = new[len(self._last) :]
        whole = new[: new.rfind(b"\n") + 1]  # a line without its end is still being written, or was torn
        lines = whole.splitlines(keepends=True)
        self._entries += [entry for line in lines if (entry := _entry(line)) is not None]
        self._read += len(whole)
        self._last = lines[-1] if lines else self._last

    def live(self, model: str) -> Live:
        return next((e.live for e in reversed(self.entries(model)) if e.live is not None), Live())

    def note(self, model: str, action: str, *, version: str = "", note: str = "", by: str = "") -> None:
        """Appends what changes nothing of what is live. Raises ServeError."""
        with self._locked() as append:
            append(Entry(_now(), by or whoami(), model, action, version, note))

    def change(
        self, model: str, action: str, new: Callable[[Live], Live], *, version: str = "", note: str = "", by: str = ""
    ) -> Live:
        """Appends what `new` makes of what is live; no other writer comes in between. Raises ServeError."""
        with self._locked() as append:
            live = new(self.live(model))
            append(Entry(_now(), by or whoami(), model, action, version, note, Live.of_json(live.as_json())))
        return live

    def previous(self, model: str, live: Live, exist: Collection[str], default: str = "") -> Live:
        """What a rollback makes of `live`: what is tried out ends; when nothing is, the version that was stable before.
        exist: versions that can be gone back to. default: what takes the requests while none is stable. Raises ServeError
        when there is nothing to go back to."""
        if live.split or live.shadow or CANARY in live.aliases:
            return live.settled()
        now = live.stable or default
        older = [v for v in self._stables(model) if v in exist and v != now]
        # Nobody ever promoted anything: the version below is what the policy chose before this one came.
        lower = [] if older else sorted((v for v in exist if now and int(v) < int(now)), key=int)
        if not (older or lower):
            raise ServeError(Kind.CONFLICT, f"model '{model}' has no version from before {now or 'the first'}")
        return live.promote((older or lower)[-1])

    def _stables(self, model: str) -> list[str]:
        """The versions that were stable, as a stack: a rollback takes off what it left."""
        stack: list[str] = []
        for entry in self.entries(model):
            stable = entry.live.stable if entry.live else ""
            if entry.action == "rollback" and stable in stack:
                while stack[-1] != stable:
                    stack.pop()
            elif stable and stack[-1:] != [stable]:
                stack.append(stable)
        return stack

    def verify(self) -> None:
        """Raises ServeError, naming the line, when a line does not follow from the one before it."""
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return
        previous = ""
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return  # a crash tore it, or it is still being written: the next one takes its place
            try:
                good = json.loads(line)["previous"] == previous
            except (ValueError, KeyError, TypeError):
                good = False
            if not good:
                raise ServeError(Kind.INTERNAL, f"line {number} of the log does not follow from the line before it")
            previous = hashlib.sha256(line).hexdigest()

    @contextmanager
    def _locked(self) -> Iterator[Callable[[Entry], None]]:
        try:
            self.path.parent.mkdir(mode=0o755, exist_ok=True)
            new = not self.path.exists()
            with open(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644), "r+b") as f:
                fcntl.flock(f, fcntl.LOCK_EX)
                yield lambda entry: _append(f, entry)
            if new:
                for folder in (self.path.parent, self.path.parent.parent):
                    sync(folder)
        except OSError as e:
            raise ServeError(Kind.UNAVAILABLE, f"the log cannot be written: {e.strerror}") from e


def _append(f: Any, entry: Entry) -> None:
    last, end = _last_line(f)
    f.truncate(end)  # a line that a crash tore was never acknowledged
    value = {k: v for k, v in vars(entry).items() if v} | ({"live": entry.live.as_json()} if entry.live else {})
    value["previous"] = hashlib.sha256(last).hexdigest() if last else ""
    line = memoryview(json.dumps(value, separators=(",", ":")).encode() + b"\n")
    try:  # past f's buffer, which would try again when it is closed
        while len(line):
            line = line[os.write(f.fileno(), line) :]
        os.fsync(f.fileno())
    except OSError:
        os.ftruncate(f.fileno(), end)  # what was not acknowledged is not there
        raise


def _last_line(f: Any) -> tuple[bytes, int]:
    """The last whole line, and where it ends."""
    size = f.seek(0, os.SEEK_END)
    step = 1 << 16
    while True:
        start = max(0, size - step)
        f.seek(start)
        data = f.read(size - start)
        end = data.rfind(b"\n") + 1
        begin = data.rfind(b"\n", 0, max(0, end - 1)) + 1
        if start == 0 or begin > 0:
            return data[begin:end], start + end
        step *= 4


def _entry(line: bytes) -> Entry | None:
    try:
        value = json.loads(line)
        live = Live.of_json(value["live"]) if "live" in value else None
        texts = {k: str(value.get(k, "")) for k in ("at", "by", "model", "action", "version", "note")}
        return Entry(**texts, live=live)
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError, ServeError):
        return None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
