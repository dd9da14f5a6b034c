# SPDX-License-Identifier: Apache-2.0
"""A compiled model on a CUDA device."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fastinfer import _core
from fastinfer import program as program_file
from fastinfer.batching.packing import PackedForm
from fastinfer.cuda import packed
from fastinfer.cuda.buckets import batch_of, bucket
from fastinfer.cuda.device import open_device
from fastinfer.cuda.dtypes import to_torch
from fastinfer.cuda.executor import Executor
from fastinfer.cuda.packed import DevicePacking
from fastinfer.cuda.peak import measure_peak
from fastinfer.cuda.precision import precision_of
from fastinfer.cuda.program import DeviceProgram
from fastinfer.errors import InputError, UnsupportedError
from fastinfer.model import MemoryUse, Model
from fastinfer.program import Program
from fastinfer.tensors import TensorSpec, to_numpy


class CudaModel(Model):
    """As :class:`fastinfer.Model`, on one GPU. Made by ``fastinfer.compile(..., device="cuda")``.

    numpy in, numpy out: through pinned memory; the call waits. If every array of a call is a torch tensor on the model's
    device, the results are tensors there, nothing is copied to the host and nothing waits: they are ordered behind the work
    on the caller's current stream, as torch's own are. Several threads may call one model at once.
    """

    def __init__(self, program: Program, *, device: str = "cuda", precision: str = "fp32", **options: Any) -> None:
        self._device_asked, self._device, self._precision = device, open_device(device), precision_of(precision)
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
        if variant := self._variants.find(kwargs):
            return variant(*args, **kwargs)
        values = self._on_device(args, kwargs)
        if values is None:
            return super().__call__(*args, **kwargs)
        results = self._executor.run_device(values)
        if self._call is not None:
            return self._call.rebuild(results)
        return results[0] if len(results) == 1 else tuple(results)

    def _on_device(self, args: tuple, kwargs: dict[str, Any]) -> list[torch.Tensor] | None:
        """The inputs in order, if the caller gave tensors on a device; None if they are on the host."""
        device = self._device.torch
        if not self._device.graphs or all(isinstance(v, np.ndarray) for v in (*args, *kwargs.values())):
            return None
        values = [_imported(v) for v in self._binding.arguments(args, kwargs)]
        where = {v.device for v in values if isinstance(v, torch.Tensor)}
        if all(d.type == "cpu" for d in where):
            return None
        if where != {device}:
            raise InputError(f"tensors on {', '.join(sorted(map(str, where)))} were given; needed: all on {device}")
        return [self._placed(v, port) for v, port in zip(values, self._program.graph.inputs, strict=True)]

    def _placed(self, value: Any, port: dict[str, Any]) -> torch.Tensor:
        """An input beside others that are on the device: numbers, and defaults of the model, are brought there."""
        name = port["name"]
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided:
                raise InputError(f"input '{name}': a tensor of layout {value.layout} was given; call to_dense() first")
            return value.detach().contiguous()
        if isinstance(value, bool | int | float | np.generic) or value is self._binding.defaults.get(name):
            return to_torch(to_numpy(value, TensorSpec.from_port(port))[0]).to(self._device.torch)
        raise InputError(f"input '{name}' is no tensor on {self._device.torch}, as others are")

    def _rows_mix(self, arrays: Sequence[Any]) -> str:
        if why := str(self._program.packed.get("rows", "not asked for")):
            return why
        plan = self._executor.explain(arrays, False)
        return f"it runs node by node ({plan['by_node']})" if plan.get("by_node") else ""

    def run_each(self, feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | Exception]:
        """As Model.run_each; where all values are tensors on the model's device, and the model has a packed form, they are packed
        there, and so are the results."""
        values = [self._tensors(feed) for feed in feeds]
        form = self._many.packed() if len(feeds) > 1 and None not in values else None
        if form is None:
            return super().run_each(feeds)
        packing = DevicePacking(form, self._device.torch)
        outcomes = packed.run_each(packing, [v for v in values if v is not None], self._executor.run_device)
        names = self._output_names
        return [o if isinstance(o, Exception) else dict(zip(names, o, strict=True)) for o in outcomes]

    def _tensors(self, feed: Mapping[str, Any]) -> list[torch.Tensor] | None:
        """A feed's inputs in order, if they are all tensors on the device."""
        device, names = self._device.torch, self._binding.names
        if device.type != "cuda" or feed.keys() != set(names):
            return None
        values = [v for n in names if isinstance(v := feed[n], torch.Tensor) and v.device == device]
        return [v.detach().contiguous() for v in values] if len(values) == len(names) else None

    def run_padded(self, inputs: Mapping[str, torch.Tensor], lengths: Sequence[int]) -> dict[str, torch.Tensor]:
        """Sequences of different lengths in tensors [sequences, extent, ...] on the device, computed without their padding.

        lengths: of each sequence, 0 to extent (a tensor on the device is waited for). The outputs have the same form, with 0
        behind a sequence's end and for empty sequences; what the inputs hold there is not read. As with torch's own calls
        nothing waits. Raises InputError, and UnsupportedError where the model has no packed form (:attr:`packing`).
        """
        form = self._many.packed()
        if form is None:
            raise UnsupportedError(f"sequences cannot be packed: {self.packing}")
        if elsewhere := {str(t.device) for t in inputs.values() if t.device != self._device.torch}:
            raise InputError(f"tensors on {', '.join(elsewhere)} were given; needed: all on {self._device.torch}")
        results = DevicePacking(form, self._device.torch).run_padded(inputs, [int(n) for n in lengths])
        return dict(zip(self._output_names, results, strict=True))

    def _packed_form(self) -> PackedForm | None:
        notes = self._program.packed
        if "graph" not in notes:
            return None
        graph = Program(notes["graph"], self._program.tensors)  # on the same constants
        program = DeviceProgram(graph, self._device, self._precision, self._executor.program)
        executor = Executor(program)
        executor.beside.append(self._executor)
        self._executor.beside.append(executor)
        return PackedForm(notes, executor, self._program.graph.inputs, bucket)

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
        """Pickled and copied as :meth:`save` writes it; made again on the same device."""
        with tempfile.TemporaryDirectory() as folder:
            self.save(path := os.path.join(folder, "model.safetensors"))
            with open(path, "rb") as f:
                return _restored, (f.read(), self._device_asked, self._precision.name, self._strict)

    def __repr__(self) -> str:
        ins, outs = (", ".join(map(str, specs)) for specs in (self.inputs, self.outputs))
        return f"<fastinfer.Model ({ins}) -> ({outs}), {self._device.name}, {self._precision.name}>"


def _restored(data: bytes, device: str, precision: str, strict: bool) -> CudaModel:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as f:
        f.write(data)
        f.flush()
        return CudaModel(program_file.load(f.name), device=device, precision=precision, strict=strict)


def _imported(value: Any) -> Any:
    """What another library holds on a GPU, as a tensor on the same memory."""
    if isinstance(value, np.ndarray | torch.Tensor) or not hasattr(value, "__dlpack_device__"):
        return value
    return torch.from_dlpack(value) if value.__dlpack_device__()[0] == _DL_CUDA else value


_DL_CUDA = 2  # of DLPack's device types


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
