# SPDX-License-Identifier: Apache-2.0
"""What a caller gives → the model's inputs, in order."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastinfer.call import Call
from fastinfer.errors import InputError
from fastinfer.tensors import TensorSpec, check_optional, to_numpy


class Binding:
    """ports: the program's inputs as plain data. defaults: of those that a call may leave out. call: of a torch module."""

    def __init__(self, ports: Sequence[dict[str, Any]], defaults: Mapping[str, Any], call: Call | None) -> None:
        specs = [TensorSpec.from_port(p) for p in ports]
        self.names = [s.name for s in specs]
        self.optionals = [(i, p) for i, p in enumerate(ports) if "optional" in p]
        # Positional arrays are the inputs as they stand.
        self.plain = call is None or call.plain
        self.defaults, self._call = defaults, call
        # What an optional input holds is looked at by check_optional.
        self._specs = [replace(s, dtype="object") if "optional" in p else s for s, p in zip(specs, ports)]

    def arguments(self, args: tuple, kwargs: dict[str, Any]) -> Sequence[Any]:
        """The inputs of a call with positional and named arguments. Raises InputError."""
        if self._call is None:
            return self._flat(args, kwargs)
        try:
            return self._call.bind(args, kwargs)
        except InputError as error:  # the model's own inputs, flat, are taken too
            if len(args) + len(kwargs) == len(self.names):
                with contextlib.suppress(InputError):
                    return self._flat(args, kwargs)
            raise error

    def _flat(self, args: tuple, kwargs: dict[str, Any]) -> tuple:
        names = self.names
        if len(args) > len(names):
            raise InputError(f"given {len(args)} positional inputs, needed {len(names)}: {', '.join(names)}")
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name in given:
                raise InputError(f"input '{name}' is given twice")
            if name not in names:
                raise InputError(f"no input is called '{name}'; needed: {', '.join(names)}")
            given[name] = value
        missing = [n for n in names if n not in given and n not in self.defaults]
        if missing:
            raise InputError(f"missing input: {', '.join(missing)}")
        return tuple(given[n] if n in given else self.defaults[n] for n in names)

    def named(self, inputs: Mapping[str, Any]) -> list[Any]:
        """The arrays of a call by input name. Raises InputError."""
        if self.defaults:
            inputs = {**self.defaults, **inputs}
        try:
            values = [inputs[n] for n in self.names]
        except KeyError:
            missing = [n for n in self.names if n not in inputs]
            raise InputError(f"missing input: {', '.join(missing)}; given: {', '.join(map(str, inputs))}") from None
        if len(inputs) != len(values):
            unknown = [str(n) for n in inputs if n not in self.names]
            raise InputError(f"no input is called {', '.join(unknown)}; needed: {', '.join(self.names)}")
        return self.arrays(values)[0]

    def arrays(self, values: Sequence[Any]) -> tuple[list[Any], bool]:
        """(arrays of values in the inputs' order, whether any was a torch tensor). Raises InputError."""
        arrays, any_torch = [], False
        for value, spec in zip(values, self._specs):
            if type(value) is not np.ndarray:
                value, is_torch = to_numpy(value, spec)
                any_torch |= is_torch
            arrays.append(value)
        for i, port in self.optionals:
            check_optional(port, arrays[i])
        return arrays, any_torch
