# SPDX-License-Identifier: Apache-2.0
"""torch.nn.Module | ExportedProgram → onnx_ir.Model of opset 26, in memory, through torch's own exporter.

Ways of capturing are tried in the order of WAYS; the first that exports wins. What the last one gives up (dynamic axes)
is said by a warning.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import onnx_ir as ir
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, OutputSpec
from torch.utils import _pytree as pytree

from fastinfer.call import Call
from fastinfer.errors import InputError, UnsupportedError, is_own_mistake
from fastinfer.frontend.onnx_loader import load
from fastinfer.frontend.torch_calls import ChangesState, call_of, output_names, refuse_mutations
from fastinfer.frontend.torch_examples import check_examples, ranges_of, separate_examples, widen_examples
from fastinfer.frontend.torch_translations import adapted_modules, translation_table

# torch's exporter is complete for this opset; newer forms are made by our own upgrade.
EXPORT_OPSET = 18


@dataclass
class TorchImport:
    """model: the graph; its outputs carry the keys of the module's result as names (`output_names`, where there are
    any). call: how the module is called. ranges: name of a free extent → (least, greatest or None), as Dim states them."""

    model: ir.Model
    call: Call
    output_names: dict[int, str]
    ranges: dict[str, tuple[int, int | None]]

    @property
    def input_names(self) -> list[str]:
        return [value.name or "" for value in self.model.graph.inputs]


def from_torch(
    source: torch.nn.Module | ExportedProgram,
    example_inputs: tuple | dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> TorchImport:
    """Imports a torch module (example_inputs: positional tuple or keyword dict, dynamic_shapes as torch.export takes
    them) or an exported program.

    An axis that is dynamic but of extent 1 in the example is widened to 2 first, since torch would specialise it.
    Raises InputError when the examples do not fit, UnsupportedError when no way of exporting works.
    """
    if isinstance(source, ExportedProgram):
        if example_inputs is not None or dynamic_shapes is not None:
            raise InputError("an ExportedProgram already has its inputs and dynamic shapes")
        return _convert(source, "the exported program")
    if example_inputs is None:
        raise InputError(
            f"compiling a {type(source).__name__} needs example_inputs: a tuple, or a dict of keyword arguments"
        )
    args, kwargs = _arguments(example_inputs)
    check_examples(args, kwargs, dynamic_shapes)
    args, kwargs = separate_examples(source, *widen_examples(args, kwargs, dynamic_shapes))
    errors: list[tuple[str, str]] = []  # way, what stopped it
    with _inference_mode(source), adapted_modules():
        for name, capture in WAYS:
            try:
                result = _of_module(source, capture(source, args, kwargs, dynamic_shapes), dynamic_shapes)
            except ChangesState:
                raise
            except Exception as error:  # torch raises anything
                if is_own_mistake(error):
                    raise
                errors.append((name, _brief(error)))
                continue
            if dynamic_shapes and (lost := _lost_axes(result.model, dynamic_shapes)):
                errors.append((name, lost))
                continue
            return result
        return _static(source, args, kwargs, dynamic_shapes, errors)


def _arguments(example_inputs: Any) -> tuple[tuple, dict[str, Any]]:
    if isinstance(example_inputs, dict):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    raise InputError(f"example_inputs is a {type(example_inputs).__name__}; a tuple or a dict is needed")


@contextlib.contextmanager
def _inference_mode(module: torch.nn.Module) -> Iterator[None]:
    """eval() and no gradients while exporting; every submodule's mode is put back after."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings(), _quiet_exporter():
            warnings.simplefilter("ignore")
            yield
    finally:
        for part, training in modes.items():
            part.training = training


# symbolic_shapes warns of code that it cannot find, once something else has set up torch's logging.
QUIET = ("torch.onnx", "torch.export", "torch.fx.experimental.symbolic_shapes", "onnxscript", "onnx_ir")


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _no_print() -> Iterator[None]:
    """torch prints the graph that it had so far before it raises; only its own modules' view of stderr is replaced."""
    silent = types.SimpleNamespace(**{**vars(sys), "stderr": io.StringIO()})
    with contextlib.ExitStack() as stack:
        for name in ("torch.export._trace", "torch.fx.graph_module"):
            with contextlib.suppress(ImportError):  # a process's first export would load it only now
                module = importlib.import_module(name)
                if hasattr(module, "sys"):
                    stack.enter_context(mock.patch.object(module, "sys", silent))
        yield


# --------------------------------------------------------------------------------------------------- capturing


def _capture(
    module: torch.nn.Module, args: tuple, kwargs: dict[str, Any], dynamic_shapes: Any, *, strict: bool, oblivious: bool
) -> ExportedProgram:
    with torch.fx.experimental._config.patch(backed_size_oblivious=oblivious), _no_print():
        return torch.export.export(
            module,
            args,
            kwargs=kwargs,
            dynamic_shapes=dynamic_shapes,
            strict=strict,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


WAYS: list[tuple[str, Callable[..., ExportedProgram]]] = [
    ("traced", lambda *given: _capture(*given, strict=False, oblivious=True)),
    ("traced, examples' sizes assumed general", lambda *given: _capture(*given, strict=False, oblivious=False)),
    ("bytecode analysis", lambda *given: _capture(*given, strict=True, oblivious=True)),
]


def _static(
    module: torch.nn.Module, args: tuple, kwargs: dict[str, Any], dynamic_shapes: Any, errors: list[tuple[str, str]]
) -> TorchImport:
    """The example's shapes only, said loudly."""
    reasons = _joined(errors)
    if not dynamic_shapes:
        raise UnsupportedError(f"torch cannot export {type(module).__name__}: {reasons}")
    try:
        result = _of_module(module, _capture(module, args, kwargs, None, strict=False, oblivious=False), None)
    except ChangesState:
        raise
    except Exception as error:
        if is_own_mistake(error):
            raise
        raise UnsupportedError(
            f"torch cannot export {type(module).__name__}: {reasons}; static: {_brief(error)}"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(
            f"{type(module).__name__} was exported for the example's shapes only, dynamic_shapes does not hold ({reasons})",
            stacklevel=3,
        )
    return result


def _joined(errors: list[tuple[str, str]]) -> str:
    """Every reason once, with the ways that it stopped."""
    ways: dict[str, list[str]] = {}
    for way, reason in errors:
        ways.setdefault(reason, []).append(way)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in ways.items())


def _brief(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:240]}"


def _lost_axes(model: ir.Model, dynamic_shapes: Any) -> str:
    """torch may specialise an axis that was asked to be dynamic; compares the counts of free axes."""
    from fastinfer.frontend.torch_examples import count_dynamic

    asked = count_dynamic(dynamic_shapes)
    free = sum(not isinstance(extent, int) for value in model.graph.inputs for extent in value.shape or ())
    return f"{asked - free} of {asked} dynamic axes were specialised to the example" if free < asked else ""


# -------------------------------------------------------------------------------------------------- converting


def _of_module(module: torch.nn.Module, program: ExportedProgram, dynamic_shapes: Any) -> TorchImport:
    return _convert(program, type(module).__name__, inspect.signature(module.forward), dynamic_shapes)


def _convert(
    program: ExportedProgram, name: str, signature: inspect.Signature | None = None, dynamic_shapes: Any = None
) -> TorchImport:
    call = call_of(program, signature)
    with _only_tensor_outputs(program), _quiet_exporter():
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=EXPORT_OPSET,
            custom_translation_table=translation_table(),
            verbose=False,
        )
    assert onnx_program is not None
    refuse_mutations(onnx_program.exported_program, name)
    if dynamic_shapes:
        with contextlib.suppress(Exception):  # only the names of free axes are at stake
            onnx_program._rename_dynamic_axes(dynamic_shapes)
    return TorchImport(load(onnx_program.model), call, output_names(call), ranges_of(program, dynamic_shapes))


def _is_constant(spec: OutputSpec) -> bool:
    return isinstance(spec.arg, ConstantArgument)


@contextlib.contextmanager
def _only_tensor_outputs(program: ExportedProgram) -> Iterator[None]:
    """torch's ONNX exporter trips over numbers among the outputs: they are hidden from it, and put back by rebuild."""
    signature, entry = program.graph_signature, program.module_call_graph[0].signature
    specs, output = signature.output_specs, program.graph_module.graph.output_node()
    kept = [i for i, spec in enumerate(specs) if not _is_constant(spec)]
    if len(kept) == len(specs) or entry is None:
        yield
        return
    before = output.args, entry.outputs, entry.out_spec
    output.args = (tuple(output.args[0][i] for i in kept),)
    signature.output_specs = [specs[i] for i in kept]
    entry.outputs = [entry.outputs[i] for i in kept] if entry.outputs else entry.outputs
    entry.out_spec = pytree.tree_flatten(tuple(0 for _ in kept))[1]
    program.graph_module.recompile()
    try:
        yield
    finally:
        output.args, entry.outputs, entry.out_spec = before
        signature.output_specs = specs
        program.graph_module.recompile()
