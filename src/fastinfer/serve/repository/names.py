# SPDX-License-Identifier: Apache-2.0
"""Which names models, versions and files may have, and that paths stay inside the repository."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fastinfer.serve.errors import Kind, ServeError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,17}\Z", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]{0,199}\Z", re.ASCII)
DEPTH = 8


def quoted(text: object) -> str:
    """A name that a stranger gave, for an error or a log: short, without control characters."""
    return ascii(text if isinstance(text, str) else str(text)[:80])[:80]


def is_name(name: str) -> bool:
    return bool(_NAME.match(name))


def is_version(version: str) -> bool:
    return bool(_VERSION.match(version))


def check_name(name: str, what: str = "model name") -> str:
    """Raises ServeError unless it is 1 to 128 letters, digits, '.', '_' and '-', the first a letter or digit."""
    if not isinstance(name, str) or not is_name(name):
        raise ServeError(
            Kind.INVALID_ARGUMENT,
            f"{quoted(name)} is no {what}: 1 to 128 letters, digits, '.', '_' and '-', the first a letter or a digit",
        )
    return name


def check_version(version: str) -> str:
    """Raises ServeError unless it is a whole number from 1, without leading zeros."""
    if not isinstance(version, str) or not is_version(version):
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"{quoted(version)} is no version: a number from 1 on, without leading zeros"
        )
    return version


def check_file(path: str) -> str:
    """A file's path inside a version, parts divided by '/'. Raises ServeError for any that could lead elsewhere."""
    parts = path.split("/") if isinstance(path, str) else []
    if not parts or len(parts) > DEPTH or not all(_PART.match(p) and not p.endswith((".", " ")) for p in parts):
        raise ServeError(
            Kind.INVALID_ARGUMENT,
            f"{quoted(path)} is no file name of a version: up to {DEPTH} parts of letters, digits, '.', '_', '-', ' '",
        )
    return path


def inside(root: Path, path: Path) -> Path:
    """The real path. Raises ServeError when links lead out of `root`."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise ServeError(Kind.INVALID_ARGUMENT, f"{quoted(path.name)} is a link that leaves the repository")
    return real
