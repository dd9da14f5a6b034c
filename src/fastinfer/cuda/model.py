# SPDX-License-Identifier: Apache-2.0
"""A compiled model on a CUDA device."""

from __future__ import annotations

import os
from typing import Any

import torch

from fastinfer import _core
from fastinfer import program as program_file
from fastinfer.batching.packing import PackedForm
from fastinfer.cuda.buckets import batch_of, bucket
from fastinfer.cuda.device import open_device
from fastinfer.cuda.executor import Executor
from fastinfer.cuda.peak import measure_peak
from fastinfer.cuda.precision import precision_of
from fastinfer.cuda.program import DeviceProgram
from fastinfer.errors import InputError, UnsupportedError
from fastinfer.model import MemoryUse, Model
from fastinfer.program import Program


class CudaModel(Model):
    """As :class:`fastinfer.Model`, on one GPU. Made by ``fastinfer.compile(..., device="cuda")``.

    numpy in, numpy out: through pinned memory; the call waits. If every array of a call is a torch tensor on the model's
    device, the results are tensors there, nothing is copied to the host and nothing waits: they are ordered behind the work
    on the caller's current stream, as torch's own are. Several threads may call one model at once.
    """

    def __init__(self, program: Program, *, device: str = "cuda", precision: str = "fp32", **options: Any) -> None:
        self._device, self._precision = open_device(device), precision_of(precision)
        super().__init__(program, **options)

    def _engine(self, threads: int | None) -> tuple[_core.Program, Any]:
        if threads is not None:
            raise UnsupportedError(f"threads={threads} is for device='cpu'")
        on_device = DeviceProgram(self._program, self._device, self._precision)
        if self._strict and (found := on_device.without_kernel()):
            label, reason = next(iter(found.items()))
            raise UnsupportedError(f"{label} has no kernel on the device ({reason}), which strict=True forbids")
        return on_device.native, Executor(on_device, batch=batch_of(self._program))

    # ------------------------------------------------------------------------------------------------------------ run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        values = self._on_device(args, kwargs)
        if values is None:
            return super().__call__(*args, **kwargs)
        results = self._executor.run_device(values)
        if self._call is not None:
            return self._call.rebuild(results)
        return results[0] if len(results) == 1 else tuple(results)

    def _on_device(self, args: tuple, kwargs: dict[str, Any]) -> list[torch.Tensor] | None:
        """The inputs in order, if all that the caller gave are tensors on the device; None if they are elsewhere."""
        where = {v.device for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)}
        if self._device.torch.type != "cuda" or not any(d.type == "cuda" for d in where):
            return None
        if where != {self._device.torch}:
            raise InputError(
                f"tensors on {', '.join(sorted(map(str, where)))} were given; needed: all on {self._device.torch}"
            )
        values = []
        for value, spec in zip(self._binding.arguments(args, kwargs), self.inputs, strict=False):
            if isinstance(value, torch.Tensor):
                values.append(value.detach().contiguous())
            else:
                raise InputError(f"input '{spec.name}' is no tensor on {self._device.torch}, as others are")
        return values

    def _packed_form(self) -> PackedForm | None:
        notes = self._program.packed
        if "graph" not in notes:
            return None
        packed = Program(notes["graph"], self._program.tensors)  # on the same constants
        program = DeviceProgram(packed, self._device, self._precision, self._executor.program)
        return PackedForm(notes, Executor(program), self._program.graph.inputs, bucket)

    # --------------------------------------------------------------------------------------------------------- explain

    @property
    def device(self) -> str:
        return f"cuda:{self._device.torch.index or 0}"

    @property
    def place(self) -> str:
        return f"{self._device.name}, {self._precision.name}"

    def measure_peak(self) -> dict[str, Any]:
        """As on the CPU; "gflops" are of products as the precision has them."""
        return measure_peak(self._device, self._precision) if self._device.graphs else super().measure_peak()

    @property
    def fallback_nodes(self) -> dict[str, str]:
        """Nodes that run through torch or on the host, as far as that is known before a run → why."""
        return self._executor.program.without_kernel()

    def memory(self) -> MemoryUse:
        """Bytes on the device."""
        executor = self._executor
        return MemoryUse(executor.program.constant_bytes, executor.cached_bytes, executor.cached_plans)

    def tune(self, *args: Any, **inputs: Any) -> None:
        """Race the candidate configurations of each kernel on these inputs' shapes; winners are kept in a file."""
        arrays, _ = self._binding.arrays(self._binding.arguments(args, inputs))
        self._executor.tune(arrays)

    def save(self, path: str | os.PathLike) -> None:
        """Write one safetensors file with the weights as they came, for any device."""
        program_file.save(self._program, _Dense(self._program), path)  # type: ignore[arg-type]

    def __reduce__(self) -> tuple:
        raise TypeError("a model on a GPU cannot be pickled: save() it, and load it where it shall run")

    def __repr__(self) -> str:
        ins, outs = (", ".join(map(str, specs)) for specs in (self.inputs, self.outputs))
        return f"<fastinfer.Model ({ins}) -> ({outs}), {self._device.name}, {self._precision.name}>"


class _Dense:
    """The constants as a program holds them, none packed: what program.save asks a native program for."""

    isa = "baseline"

    def __init__(self, program: Program) -> None:
        self._program = program

    def constants(self) -> list[dict[str, Any]]:
        rows = []
        for value, key in self._program.graph.constants.items():
            held = self._program.tensors[key]
            dense = held["dense"] if isinstance(held, dict) else held
            if dense.dtype != object:
                code = _core.dtype_code(dense.dtype)
                rows.append({"value": value, "dtype": code, "shape": list(dense.shape), "dense": dense, "packed": {}})
        return rows
