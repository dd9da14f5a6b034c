# SPDX-License-Identifier: Apache-2.0
"""A compiled model: call it, run it, explain it, save it."""

from __future__ import annotations

import asyncio
import os
import tempfile
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinfer import _core
from fastinfer import program as program_file
from fastinfer.batching.many import Many
from fastinfer.batching.packing import PackedForm
from fastinfer.binding import Binding
from fastinfer.call import Call
from fastinfer.errors import InputError, ModelError, UnsupportedError
from fastinfer.report import Explanation, Profile
from fastinfer.tensors import TensorSpec, check_declared, from_numpy_like
from fastinfer.variants import Variants


def _reference() -> Callable:
    """The fallback is imported when a node first needs it: a fully native saved program runs without onnx."""
    from fastinfer.fallback import Fallback

    return Fallback


@dataclass
class MemoryUse:
    """Bytes: constants as held (dense and packed), free arenas kept for reuse; and the number of cached plans."""

    constants: int
    arenas: int
    plans: int


class Model:
    """A model compiled for this machine. Several threads may call one model at once.

    Made by :func:`fastinfer.compile` and :func:`fastinfer.load`.
    """

    def __init__(
        self,
        program: program_file.Program,
        *,
        threads: int | None = None,
        strict: bool = False,
        call: Call | None = None,
        overridable: Sequence[TensorSpec] = (),
        with_inputs: Callable[[list[str]], Model] | None = None,
    ) -> None:
        self._program, self._strict, self._outputs_seen = program, strict, False
        if call is not None:
            program.notes["call"] = call.as_dict()
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise InputError(f"threads={threads!r}; needed: a whole number, at least 1")
        self._native, self._executor = self._engine(threads)
        self._tuned = _table(program.notes.get("tuning", {}))
        if self._tuned:
            self._native.set_tuning(self._tuned)
        self._call = call or program.call()
        if self._call is not None and self._call.n_inputs != len(program.graph.inputs):
            raise ModelError(f"the program has {len(program.graph.inputs)} inputs, its call {self._call.n_inputs}")
        specs = [TensorSpec.from_port(p) for p in program.graph.inputs]
        defaults = program.defaults()  # of the last inputs: a call may leave them out
        self._binding = Binding(program.graph.inputs, defaults, self._call)
        self.inputs = [s for s in specs if s.name not in defaults]
        self.overridable = [s for s in specs if s.name in defaults] + list(overridable)
        self.outputs = [TensorSpec.from_port(p) for p in program.graph.outputs]
        self._variants = Variants([s.name for s in overridable], with_inputs)
        self._output_names = [s.name for s in self.outputs]
        me = weakref.proxy(self)  # a model in a circle would keep its memory until the collector comes by
        self._many = Many(
            self._executor.run, lambda: me._packed_form(), lambda a: me._rows_mix(a), lambda why: me._drop_packed(why)
        )
        # Calls with dense numpy arrays of shapes seen before, without this file; None answers all others.
        self._quick: Any = None
        self._flat = self._binding.plain and (self._call is None or self._call.result is None)

    def _engine(self, threads: int | None) -> tuple[_core.Program, Any]:
        """What plans and what runs; a subclass's runs elsewhere."""
        program = self._program
        native = program.native(_reference, self._strict)
        if self._strict and (found := dict(program.notes.get("by_reference", {}))):
            label, reason = next(iter(found.items()))
            raise UnsupportedError(f"{label} has no native form ({reason}), which strict=True forbids")
        program.release_constants()
        return native, _core.Executor(native, min(threads or _core.usable_cores(), 64))

    # ------------------------------------------------------------------------------------------------------------ run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on positional (in the order of ``inputs``) or named arrays.

        numpy in, numpy out; if any argument is a torch tensor, torch tensors come out; objects with ``__dlpack__`` are
        accepted. A model compiled from a torch module is called as the module is (or with the model's own ``inputs``), and
        gives the module's own output structure; after ``save`` and ``load`` dicts, lists, tuples and named tuples stay,
        other containers come back as one of these. Else one output comes as itself, several as a tuple. Raises InputError.
        """
        if not kwargs and (quick := self._quick) is not None and self._flat:
            if (result := quick.call(args)) is not None:
                return result
        if kwargs or len(args) != len(self._binding.names) or not self._binding.plain:
            if variant := self._variants.find(kwargs):
                return variant(*args, **kwargs)
            args = tuple(self._binding.arguments(args, kwargs))
        arrays, torch_like = self._binding.arrays(args)
        results = self._executor.run(arrays)
        if not self._outputs_seen:
            self._see(results)
        if torch_like:
            results = [from_numpy_like(r) for r in results]
        if self._call is not None:
            return self._call.rebuild(results)
        return results[0] if len(results) == 1 else tuple(results)

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Run on arrays by input name; returns numpy arrays by output name (of `outputs`, if given: all are computed,
        these are returned, in this order). Raises InputError.

        A name in ``overridable`` (an initializer that the model also lists as an input) may be given or left out. Such
        initializers are constants until one is first given: the model is then compiled once more with these as inputs,
        which takes its time; ``compile(..., overridable=[...])`` does so from the start.
        """
        if outputs is None and (quick := self._quick) is not None and (named := quick.run(inputs)) is not None:
            return named
        if type(inputs) is not dict and not isinstance(inputs, Mapping):
            raise InputError(
                f"a {type(inputs).__name__} was given; needed: a dict with {', '.join(self._binding.names)}"
            )
        if outputs is not None and (unknown := [o for o in outputs if o not in self._output_names]):
            raise InputError(f"no output is called '{unknown[0]}'; the model has: {', '.join(self._output_names)}")
        if variant := self._variants.find(inputs):
            return variant.run(inputs, outputs)
        results = self._executor.run(self._binding.named(inputs))
        if not self._outputs_seen:
            self._see(results)
        named = dict(zip(self._output_names, results, strict=True))
        return named if outputs is None else {name: named[name] for name in outputs}

    def _see(self, results: Sequence[Any]) -> None:
        """What comes out is looked at once; from then on calls may take the quick way."""
        self.outputs, self._outputs_seen = check_declared(self.outputs, results), True
        if not self._binding.optionals and isinstance(self._executor, _core.Executor):
            self._quick = _core.Quick(self._executor, tuple(self._binding.names), tuple(self._output_names))

    def run_many(self, feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Run on several feeds, of different lengths too; the outputs of each, with the bits that it has alone.

        Where the model has a packed form (:attr:`packing`) the feeds run as one call without padding; else feeds of equal
        shapes run as one batch if the model's rows are independent; what is left runs one by one. Raises the first
        feed's error (InputError, ...); :meth:`run_each` gives every feed's own.
        """
        outcomes = self.run_each(feeds)
        for i, outcome in enumerate(outcomes):
            if isinstance(outcome, Exception):
                if hasattr(outcome, "add_note"):  # Python 3.11
                    outcome.add_note(f"in feed {i} of {len(feeds)}")
                raise outcome
        return outcomes  # type: ignore[return-value]

    def run_each(self, feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | Exception]:
        """As :meth:`run_many`, with each feed's outputs or the error that it raises alone."""
        if len(feeds) == 1:
            try:
                return [self.run(feeds[0])]
            except Exception as e:
                return [e]
        outcomes: list[dict[str, Any] | Exception] = [{} for _ in feeds]
        arrays: dict[int, list[Any]] = {}
        for i, feed in enumerate(feeds):
            try:
                if variant := self._variants.find(feed):
                    outcomes[i] = variant.run(feed)
                else:
                    arrays[i] = self._binding.named(feed)
            except Exception as e:
                outcomes[i] = e  # it belongs to this feed
        for i, result in zip(arrays, self._many.run(list(arrays.values())), strict=True):
            if isinstance(result, Exception):
                outcomes[i] = result
            else:
                outcomes[i] = dict(zip(self._output_names, result, strict=True))
        return outcomes

    def batch_group(self, inputs: Mapping[str, Any]) -> tuple[Hashable | None, int, int]:
        """(group, rows, work): feeds of equal groups share one call in :meth:`run_each`, one of group None runs alone; rows
        is the feed's extent along the batch, work is rows, or tokens where sequences are packed. Raises InputError."""
        if self._variants.find(inputs):
            return None, 1, 1
        return self._many.group(self._binding.named(inputs))

    def prepare_many(self) -> None:
        """Build now what the first :meth:`run_many` would build."""
        self._many.packed()

    @property
    def packing(self) -> str:
        """Empty where sequences of different lengths run as one packed call; else why they cannot."""
        return str(
            self._program.packed.get("refused", "" if self._program.packed else "compiled without a packed form")
        )

    @property
    def batches(self) -> str:
        """How several feeds share calls (:meth:`run_many`), in words."""
        if not self.packing:
            return "feeds of all lengths in one call, packed without padding"
        rows = self._program.packed.get("rows", "not asked for")
        return f"{f'one by one: {rows}' if rows else 'feeds of equal shapes as one batch'} (not packed: {self.packing})"

    def _rows_mix(self, arrays: Sequence[Any]) -> str:
        """Why rows of such feeds may not share a batch; empty when they may. By reference bits may depend on company."""
        why = str(self._program.packed.get("rows", "not asked for"))
        if why:
            return why
        plan = self._executor.explain(arrays, False)
        foreign = [s["label"] for s in plan["steps"] if s["kernel"] in ("reference", "eager")]
        return f"{foreign[0]} runs by reference" if foreign else "" if plan["finished"] else "shapes depend on data"

    def _packed_form(self) -> PackedForm | None:
        notes = self._program.packed
        if "graph" not in notes:
            return None
        try:
            native = self._program.packed_native(self._native)
            return PackedForm(notes, _core.Executor(native, self.threads, 8), self._program.graph.inputs)
        except ModelError as e:
            self._drop_packed(str(e))
            return None

    def _drop_packed(self, why: str) -> None:
        self._program.packed = {"refused": why, "rows": "not asked for"}

    async def arun(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """As :meth:`run`, in a worker thread, so that the event loop goes on."""
        return await asyncio.to_thread(self.run, inputs)

    # -------------------------------------------------------------------------------------------------------- explain

    @property
    def fallback_nodes(self) -> dict[str, str]:
        """Nodes that run by reference → why: without a native operator, or not for their types."""
        reasons = self._native.fallback_reasons
        own = {self._native.label(i): r for i, r in enumerate(reasons) if r}
        return {**own, **self._program.notes.get("by_reference", {})}

    def explain(self, inputs: Mapping[str, Any] | None = None) -> Explanation:
        """The steps for these inputs (arrays by name), or for example shapes with every free extent set to 1.

        Each step: operator, kernel, why not a faster one, parts, output shape and type, bytes, flops (see
        :class:`fastinfer.report.Explanation`). Where shapes depend on data, the model is run once
        on ``inputs``; without inputs only the steps up to the first such place are listed.
        """
        if variant := self._variants.find(inputs or ()):
            return variant.explain(inputs)
        example = inputs if inputs is not None else {s.name: s.zeros() for s in self.inputs}
        plan = self._executor.explain(self._binding.named(example), inputs is not None)
        self._name_nodes(plan["steps"])
        return Explanation(plan, self.fallback_nodes, self.place, self.batches)

    @property
    def device(self) -> str:
        """ "cpu", "cuda:0", …"""
        return "cpu"

    @property
    def place(self) -> str:
        """What it runs on, in a word or two."""
        return str(self._native.isa)

    def measure_peak(self) -> dict[str, Any]:
        """What the hardware gives as many threads as a call may use: "gflops", "read_gbs"; "by": how it was measured."""
        return {**_core.measure_peak(self.threads), "by": "a loop of register-only fused multiply-adds"}

    def _name_nodes(self, steps: list[dict[str, Any]]) -> None:
        """Adds the model's other nodes that became part of a step."""
        for step in steps:
            if (
                step["depth"] == 0
                and step["node"] >= 0
                and (also := self._program.graph.nodes[step["node"]].get("also"))
            ):
                step["also"] = [*map(str, also), *step.get("also", ())]

    def profile(self, inputs: Mapping[str, Any], runs: int = 10) -> Profile:
        """Time every step over ``runs`` calls (after one warm-up). Times are in nanoseconds."""
        if variant := self._variants.find(inputs):
            return variant.profile(inputs, runs)
        arrays = self._binding.named(inputs)
        self._executor.run(arrays)
        timed = [self._executor.profile(arrays)[1] for _ in range(max(1, runs))]
        for steps in timed:
            self._name_nodes(steps)
        return Profile(timed, self.threads, "" if self.device == "cpu" else self.place)

    def tune(self, *args: Any, **inputs: Any) -> None:
        """Race what plans for inputs of these shapes can choose between, and use the winners from now on.

        Per layer: Winograd or the direct sum, how products are split between cores, whether a step is worth waking
        them. Winners are kept in a file (docs/tuning.md), so the second time is quick, and in what :meth:`save` writes;
        :meth:`explain` shows them. Results stay within the precision that was asked for. A choice that moves bits
        depends on one sample's shape, never on the batch. Takes seconds; let no other thread run the model meanwhile.
        Raises InputError.
        """
        from fastinfer.tuning import tune

        arrays, _ = self._binding.arrays(self._binding.arguments(args, inputs))
        self._tuned = tune(self._native, self._executor, arrays, self._tuned)
        self._program.notes["tuning"] = self._tuned

    def memory(self) -> MemoryUse:
        """What the model holds now; call :meth:`trim` to give back all but the constants."""
        constants = 0
        for c in self._native.constants():
            constants += c["dense"].nbytes if "dense" in c and isinstance(c["dense"], np.ndarray) else 0
            constants += sum(p.nbytes for p in c["packed"].values())
        return MemoryUse(constants, self._executor.cached_bytes, self._executor.cached_plans)

    def trim(self) -> None:
        """Drop cached plans and free arenas; the next call makes them again."""
        self._executor.trim()
        self._many.trim()

    @property
    def threads(self) -> int:
        """Threads a call may use, the caller included."""
        return self._executor.threads

    def save(self, path: str | os.PathLike) -> None:
        """Write one safetensors file that :func:`fastinfer.load` maps without torch or onnx."""
        program_file.save(self._program, self._native, path)

    @property
    def metadata(self) -> dict[str, str]:
        """What the ONNX file says of itself: its ``metadata_props``, and producer, version, domain, description where
        given; empty for torch modules."""
        return dict(self._program.notes.get("metadata", {}))

    def __reduce__(self) -> tuple:
        """Pickled and copied as :meth:`save` writes it (initializers that calls may override are constants from then on)."""
        with tempfile.TemporaryDirectory() as folder:
            self.save(path := os.path.join(folder, "model.safetensors"))
            with open(path, "rb") as f:
                return _restored, (f.read(), self.threads, self._strict)

    def __repr__(self) -> str:
        ins = ", ".join(map(str, self.inputs))
        outs = ", ".join(map(str, self.outputs))
        return f"<fastinfer.Model ({ins}) -> ({outs}), {self._native.isa}, {self.threads} threads>"


def _table(tuning: Any) -> dict[str, str]:
    """What a file says was tuned, checked."""
    if not isinstance(tuning, dict) or not all(isinstance(x, str) for pair in tuning.items() for x in pair):
        raise ModelError("the program's tuning is not a table of words")
    return dict(tuning)


def _restored(data: bytes, threads: int, strict: bool) -> Model:
    """The inverse of ``Model.__reduce__``; the mapping outlives the file's name."""
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as f:
        f.write(data)
        f.flush()
        return load(f.name, threads=threads, strict=strict)


def load(path: str | os.PathLike, *, threads: int | None = None, strict: bool = False) -> Model:
    """Load a program written by :meth:`Model.save`. Constants are mapped from the file. Raises ModelError."""
    try:
        program = program_file.load(path)
    except OSError as e:
        raise ModelError(f"'{os.fspath(path)}' cannot be read: {e}") from e
    try:
        return Model(program, threads=threads, strict=strict)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError, MemoryError) as e:
        raise ModelError(f"'{os.fspath(path)}' is not a valid program: {type(e).__name__}: {e}") from e
