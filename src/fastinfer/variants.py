# SPDX-License-Identifier: Apache-2.0
"""Initializers that a caller gives although the program holds them as constants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastinfer.errors import InputError


class Variants:
    """Initializers that a caller may override: constants as long as nobody does.

    ONNX (IR version 4 and later) lets a caller replace an initializer that is also listed as an input. Exporters of
    2019 list all weights so, by accident; taking them at their word would leave nothing to fold or to pack. So they are
    constants, and the first call that gives one gets a second program, in which it is an input.

    names: those that are constants so far. make: compiles the model with some of them as inputs.
    """

    def __init__(self, names: Sequence[str], make: Callable[[list[str]], Any] | None) -> None:
        self._names = frozenset(names)
        self._make = make
        self._made: Any | None = None
        self._inputs: frozenset[str] = frozenset()  # of the program in _made
        self._guard = threading.Lock()

    def find(self, given: Iterable[str]) -> Any | None:
        """The model to run for inputs of these names; None when no constant of ours is among them. One program serves
        all sets that were asked for, as every one of its inputs may be left out."""
        if not self._names or not (wanted := self._names.intersection(given)):
            return None
        with self._guard:
            if self._made is None or not wanted <= self._inputs:
                if self._make is None:
                    raise InputError(f"'{min(wanted)}' is a constant of this program")
                self._inputs |= wanted
                self._made = self._make(sorted(self._inputs))
            return self._made
