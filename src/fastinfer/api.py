# SPDX-License-Identifier: Apache-2.0
"""compile(): the front door."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from fastinfer import model as model_file
from fastinfer.errors import ModelError, UnsupportedError, is_own_mistake
from fastinfer.model import Model
from fastinfer.tensors import TensorSpec


def compile(
    source: Any,
    example_inputs: tuple | dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
    strict: bool = False,
    tune: bool = False,
    overridable: Collection[str] = (),
) -> Model:
    """Compile a trained model for this machine.

    source: path to an ONNX file (external data beside it), its bytes, ``onnx.ModelProto``, ``onnx_ir.Model``,
        ``torch.nn.Module`` (with ``example_inputs``) or ``torch.export.ExportedProgram``.
        A torch module is compiled as it is in ``eval()`` mode, whatever its mode (and left in that mode). Its parameters
        are copied: training on does not change the compiled model. One that writes to its buffers or inputs is refused.
    example_inputs: a tuple of positional or a dict of keyword arguments for a torch module. None, numbers and strings
        among them are fixed: a call gives the same or leaves them out. With ``tune``, also arrays for the inputs of an ONNX model.
    dynamic_shapes: as for ``torch.export.export``; what each ``Dim`` states (equal extents, min, max) is checked at calls.
    device: "cpu", or "cuda" ("cuda:1") for an NVIDIA GPU of compute capability 8.0 or more: docs/gpu.md.
    precision: on the GPU "fp32", "tf32", "bf16", "f16", "int8" and "fp8"; on the CPU "fp32" (the default keeps float32 accuracy), or "bf16": convolutions and products with constant
        weights may round their operands to bfloat16 (float32 sums), which gives outputs within about 1e-2 of their
        largest value. It is fast on CPUs with AVX-512 BF16 and correct on all.
    threads: threads a call may use, the caller included; default: the cores this process may use.
    strict: make operators without a native form an error instead of running them by reference.
    tune: race the kernels that each layer can choose between on inputs of the example's shapes (without an example: the
        declared ones, a free first extent being 1), and keep the winners: see :meth:`Model.tune`.
    overridable: initializers, also listed as inputs of the ONNX model, that calls may replace. Without it they are
        constants, and the first call that gives one compiles the model again (``Model.run``).

    Raises ModelError (the model is wrong) or UnsupportedError (it cannot run as asked).
    """
    on_cpu = device == "cpu"
    if not on_cpu:
        _check_cuda(device, precision, threads)
    from fastinfer import frontend, passes
    from fastinfer.check import check
    from fastinfer.lower import lower, port_of

    def again(names: Collection[str]) -> Model:
        return compile(source, device=device, precision=precision, threads=threads, strict=strict,
                       overridable=[*overridable, *names])  # fmt: skip

    if on_cpu and precision not in passes.PRECISIONS:
        raise UnsupportedError(
            f"precision='{precision}'; this build computes in {', '.join(map(repr, passes.PRECISIONS))}"
        )

    if _is_torch(source):
        imported = frontend.from_torch(source, example_inputs, dynamic_shapes)
        model, call, names, ranges = imported.model, imported.call, imported.output_names, imported.ranges
        if overridable:
            raise ModelError("overridable is for ONNX models")
        constants, defaults = [], {}
    else:
        _refuse_other(source)
        if (example_inputs is not None and not tune) or dynamic_shapes is not None:
            raise ModelError(
                "example_inputs (without tune) and dynamic_shapes are for torch models; an ONNX model names its own inputs"
            )
        with _stage("reading the model"):
            model, call, names, ranges = frontend.load(source, overridable=overridable), None, {}, {}
        constants = [TensorSpec.from_port(port_of(0, v)) for v in model.meta[frontend.OVERRIDABLE]]
        defaults = model.meta[frontend.DEFAULTS]
    metadata = _metadata(model)
    with _stage("optimizing the model"), passes.pattern.own_names():
        model = passes.run_pipeline(model, precision=precision if on_cpu else "fp32")
        packed = passes.pack_sequences(model)
        rows = passes.independent_rows(model) if isinstance(packed, str) else "it packs"
    with _stage("lowering the model"):
        program = lower(model, defaults, packed, rows, names, ranges, expect=True)
        program.notes.update({"metadata": metadata} if metadata and call is None else {})
        options: dict[str, Any] = {
            "strict": strict, "call": call, "overridable": constants, "with_inputs": again if constants else None,
        }  # fmt: skip
        if on_cpu:
            made = Model(program, threads=threads, **options)
            program.notes["by_reference"] = check(program, made._native, strict)
        else:
            from fastinfer.cuda.model import CudaModel

            made = CudaModel(program, device=device, precision=precision, **options)
    if tune:
        _tune(made, example_inputs)
    return made


def _check_cuda(device: str, precision: str, threads: int | None) -> None:
    """What can be refused before the model is read. Raises UnsupportedError."""
    if device.split(":")[0] != "cuda":
        raise UnsupportedError(f"device='{device}'; needed: 'cpu', 'cuda' or 'cuda:<number>'")
    try:
        from fastinfer.cuda.device import open_device
        from fastinfer.cuda.precision import precision_of
    except ImportError as e:
        raise UnsupportedError(f"device='{device}' needs torch and triton (pip install 'fastinfer[gpu]'): {e}") from e
    open_device(device)
    precision_of(precision)
    if threads is not None:
        raise UnsupportedError(f"threads={threads} is for device='cpu'")


def _tune(model: Model, example: tuple | dict[str, Any] | None) -> None:
    if isinstance(example, dict):
        model.tune(**example)
    elif example is not None:
        model.tune(*example)
    else:
        model.tune(*[_example(spec) for spec in model.inputs])


def _example(spec: TensorSpec) -> np.ndarray:
    """Normal numbers, integers that index any table, masks of ones."""
    extents = spec.shape
    if extents is None or any(not isinstance(d, int) for d in extents[1:]):
        raise ModelError(f"tune=True needs example_inputs: only the first extent of an input may be free, not {spec}")
    zeros = spec.zeros()
    if zeros.dtype.kind == "f":
        return np.random.default_rng(0).standard_normal(zeros.shape).astype(zeros.dtype)
    return np.ones_like(zeros) if zeros.dtype == np.bool_ or "mask" in spec.name else zeros


@contextlib.contextmanager
def _stage(what: str) -> Iterator[None]:
    """What a damaged model breaks in ways that no check foresaw is still a ModelError, the cause attached; a mistake of
    this package is not dressed up as one."""
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RecursionError, RuntimeError,
            TypeError, ValueError) as e:  # fmt: skip
        if is_own_mistake(e):
            raise
        raise ModelError(f"{what} failed: {type(e).__name__}: {e}") from e


def _metadata(model: Any) -> dict[str, str]:
    own = {
        "producer_name": model.producer_name, "producer_version": model.producer_version, "domain": model.domain,
        "model_version": model.model_version, "description": model.doc_string, "graph_name": model.graph.name,
    }  # fmt: skip
    return {**{k: str(v) for k, v in own.items() if v}, **{str(k): str(v) for k, v in model.metadata_props.items()}}


def _refuse_other(source: Any) -> None:
    """What is neither a torch model nor an ONNX one, but is easily taken for one."""
    if isinstance(source, dict):
        raise ModelError(
            "a dict was given: a state dict holds weights only; needed: the torch.nn.Module, with example_inputs"
        )
    if callable(source) and not hasattr(source, "graph"):
        what = "a class" if isinstance(source, type) else f"a {type(source).__name__}"
        raise ModelError(
            f"{what} was given; needed: a torch.nn.Module (with the function as its forward), an exported program or an ONNX "
            "model"
        )


def _is_torch(source: Any) -> bool:
    """Whether it comes from torch; asks only if torch was already imported, so ONNX users never pay for it."""
    if isinstance(source, str | bytes | os.PathLike) or "torch" not in sys.modules:
        return False
    torch = sys.modules["torch"]
    return isinstance(source, torch.nn.Module | torch.export.ExportedProgram)


def load(
    path: str | os.PathLike,
    *,
    threads: int | None = None,
    strict: bool = False,
    device: str = "cpu",
    precision: str = "fp32",
) -> Model:
    """Load a program written by :meth:`Model.save`. Constants are mapped from the file. Needs neither torch nor onnx on the CPU.

    device, precision: as for :func:`compile`; on the CPU a program has the precision that it was compiled with. One that was
    compiled for the CPU may hold weights in the CPU kernels' layout only: a GPU cannot use those.

    Raises ModelError for what is no good file, UnsupportedError for what it cannot do here.
    """
    if device == "cpu":
        if precision != "fp32":
            raise UnsupportedError(f"precision='{precision}'; a saved program has the one that it was compiled with")
        return model_file.load(path, threads=threads, strict=strict)
    _check_cuda(device, precision, threads)
    from fastinfer import program
    from fastinfer.cuda.model import CudaModel

    try:
        held = program.load(path)
    except OSError as e:
        raise ModelError(f"'{os.fspath(path)}' cannot be read: {e}") from e
    return CudaModel(held, device=device, precision=precision, strict=strict)
