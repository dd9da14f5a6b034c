# SPDX-License-Identifier: Apache-2.0
"""Timing this engine and its peers on one model, interleaved in one process.

A figure is only given for outputs that agree. All runtimes get the same inputs, thread count and precision: float32
(OpenVINO would otherwise take bfloat16 where the CPU has it), or bfloat16 for those that have it.

Machines drift and throttle, so runtimes take turns in short blocks, of several calls even where one call fills a block.
Every block, whoever's it is, starts with a pause in which the others' spinning threads park (else they take a core from
it: ResNet-50 takes us 33 ms instead of 16 right after ONNX Runtime), and with one call that is not counted: it brings
back the runtime's own weights and arena, its sleeping threads and the clock of cores that have just idled. The calls
that count follow each other at once, so weights are as cold as a caller's sequence leaves them: what one call does not
keep in cache is read from memory by the next. Checked on 2026-11-21 (Zen 5, 2 cores): VGG16 U-Net and ResNet-50 take
us as long beside both peers (80, 18 ms) as alone (79-84, 17-18 ms).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastinfer import _core, peers
from fastinfer.model import Model

TOLERANCE = 1e-4  # max|a − b| ≤ TOLERANCE · max|b|
# bfloat16 has 8 bits: 2.5e-3 rms per product, and deep networks gather it; those of random weights most (OpenVINO's own
# error in bfloat16 is 0.09 on the suite's ResNet-50, 0.10 on MobileNetV2, 0.14 on YOLOv8n; ours 0.10, 0.09, 0.19).
BF16_TOLERANCE = 0.25
# Of the GPU's: tf32 and float16 have three bits more than bfloat16; int8 with a scale per row is as coarse as it; e4m3 has four
# bits less, and is of use to models that were trained for it.
TOLERANCES = {"fp32": TOLERANCE, "tf32": 0.03, "f16": 0.03, "bf16": BF16_TOLERANCE, "int8": BF16_TOLERANCE, "fp8": 1.0}
# A model whose inputs or outputs are 16-bit floats: every runtime rounds differently, between operators too.
HALF_TOLERANCE = 1e-2
# Before a block the others' threads must park, else they take a core from the runtime whose turn it is. ONNX Runtime's
# workers spin by count: 16 ms after a call on one machine, 50 to 70 ms on another (Zen 5); OpenVINO's about 1 ms. So
# the end of spinning is measured: PAUSE is one look at the process's CPU time, which is kept in ticks of up to 4 ms.
PAUSE = 0.01
LONGEST_PAUSE = 0.15
BLOCK = 0.05  # seconds of one runtime's turn, and
LEAST_CALLS = 3  # as many calls, as long as they take less than
LONGEST_BLOCK = 0.5
OURS = "fastinfer"


@dataclass
class Timing:
    """One runtime: seconds per call, or why there are none. error: its max|a − b| / max|b| to the reference."""

    name: str
    seconds: list[float] = field(default_factory=list)
    error: float | None = None
    refused: str = ""
    note: str = ""

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.seconds, q))


@dataclass
class Comparison:
    """timings: ours first. flops: of one call. peak: what the hardware gave when it was measured (Model.measure_peak). threads:
    of each runtime on the CPU; place: what ours ran on."""

    timings: list[Timing]
    threads: int
    tolerance: float
    reference: str | None
    flops: float
    peak: dict[str, Any]
    device: str = "cpu"
    place: str = ""

    @property
    def ours(self) -> Timing:
        return self.timings[0]

    @property
    def ratio(self) -> float | None:
        """(p50 of the fastest peer) / (our p50); None when either has no figure."""
        peer = [t.percentile(50) for t in self.timings[1:] if t.seconds]
        return min(peer) / self.ours.percentile(50) if peer and self.ours.seconds else None

    def rows(self) -> list[dict[str, Any]]:
        """Plain data, one dict per runtime; times in milliseconds."""
        return [self._row(t) for t in self.timings]

    def _row(self, t: Timing) -> dict[str, Any]:
        row: dict[str, Any] = {"runtime": t.name, "max_error": t.error, **({"note": t.note} if t.note else {})}
        if not t.seconds:
            return {**row, "refused": t.refused}
        p50 = t.percentile(50)
        row.update(calls=len(t.seconds), p50_ms=p50 * 1e3, p90_ms=t.percentile(90) * 1e3, p99_ms=t.percentile(99) * 1e3)
        if self.ours.seconds:
            row["ratio"] = p50 / self.ours.percentile(50)
        if self.flops:
            row["gflops"] = self.flops / p50 * 1e-9
            row["share_of_peak"] = row["gflops"] / self.peak["gflops"]
        return row

    def as_dict(self) -> dict[str, Any]:
        plain = {
            k: getattr(self, k)
            for k in ("device", "place", "threads", "tolerance", "reference", "flops", "peak", "ratio")
        }
        return {**plain, "runtimes": self.rows()}


def disagreement(ours: Sequence[Any], reference: Sequence[Any]) -> float:
    """max over outputs of max|a − b| / max|b|; infinite where shapes, NaNs or discrete values differ."""
    if len(ours) != len(reference):
        return float("inf")
    return max((_difference(np.asarray(a), np.asarray(b)) for a, b in zip(ours, reference)), default=0.0)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return float("inf")
    if a.size == 0:
        return 0.0
    if not np.issubdtype(b.dtype, np.inexact):
        return 0.0 if np.array_equal(a, b) else float("inf")
    wide = np.complex128 if np.iscomplexobj(b) else np.float64
    a, b = a.astype(wide), b.astype(wide)
    finite = np.isfinite(b)
    if not np.array_equal(finite, np.isfinite(a)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    a, b = a[finite], b[finite]
    gap = float(np.abs(a - b).max())
    return 0.0 if gap == 0 else gap / max(float(np.abs(b).max()), 1e-30)


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    seconds: float,
    on_progress: Callable[[float], None] | None = None,
    min_rounds: int = 3,
) -> dict[str, list[float]]:
    """Seconds of each call of each runtime, taking turns for about `seconds` in all (at least `min_rounds` turns)."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    start, rounds = time.perf_counter(), 0
    while rounds < min_rounds or time.perf_counter() - start < seconds:
        order = list(calls.items())
        for name, call in order if rounds % 2 == 0 else reversed(order):
            _until_parked()
            call()
            _block(call, taken[name])
            if on_progress:
                spent = (time.perf_counter() - start) / seconds if seconds > 0 else 1.0
                on_progress(min(1.0, spent, (rounds + 1) / min_rounds))
        rounds += 1
    return taken


def _until_parked() -> None:
    """Sleep until no thread of this process computes (a tenth of one core over PAUSE), at most LONGEST_PAUSE seconds."""
    end = time.perf_counter() + LONGEST_PAUSE
    while time.perf_counter() < end:
        used, began = time.process_time(), time.perf_counter()
        time.sleep(PAUSE)
        if time.process_time() - used < 0.1 * (time.perf_counter() - began):
            return


def _block(call: Callable[[], Any], taken: list[float]) -> None:
    clock = time.perf_counter
    started = begin = clock()
    for calls in itertools.count(1):
        call()
        now = clock()
        taken.append(now - begin)
        if now - started >= (BLOCK if calls >= LEAST_CALLS else LONGEST_BLOCK):
            return
        begin = now


def compare(
    model: Model,
    inputs: Mapping[str, np.ndarray],
    *,
    against: Sequence[str] = ("onnxruntime",),
    onnx: Any = None,
    module: Any = None,
    seconds: float = 5.0,
    tolerance: float | None = None,
    on_progress: Callable[[float], None] | None = None,
    min_rounds: int = 3,
    precision: str = "fp32",
) -> Comparison:
    """Time `model` against peers on `inputs`.

    precision: that of `model`, for the peers too. tolerance: default that of the precision in TOLERANCES, at least
    HALF_TOLERANCE for a model of 16-bit floats. With a model on a GPU torch and inductor run there too, from and to the host
    as ours, the others on this machine's cores.
    onnx: path or bytes that onnxruntime and openvino load. module: callable on torch tensors, for the peers torch and
    inductor; for inductor also the path of a package (torch._inductor.aoti_compile_and_package).
    The first peer that runs is the reference. Raises KeyError for an unknown peer.
    """
    threads = model.threads if model.device == "cpu" else _core.usable_cores()
    if tolerance is None:
        half = any(s.dtype in ("float16", "bfloat16") for s in [*model.inputs, *model.outputs])
        tolerance = max(TOLERANCES.get(precision, TOLERANCE), HALF_TOLERANCE if half else 0.0)
    timings, calls, outputs = [Timing(OURS)], {}, {}
    plain: dict[str, Callable[[], list] | None] = {}
    starts: dict[str, Callable[[], peers.Run]] = {OURS: lambda: peers.Run(*_ours(model, inputs))}
    for name in against:
        starts[name] = peers.starter(
            name, inputs, threads, onnx=onnx, module=module, precision=precision, device=model.device
        )
        timings.append(Timing(name))
    for timing in timings:
        try:
            run = starts[timing.name]()
            run.call()
            outputs[timing.name] = [np.array(x) for x in run.call_for_outputs()]
            calls[timing.name], plain[timing.name] = run.call, run.plain_outputs
        except Exception as error:  # a peer that cannot run this model is a row of the answer
            if timing.name == OURS:
                raise
            timing.refused = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:200]
    reference = next((t.name for t in timings[1:] if t.name in calls), None)
    if reference is not None:
        _refuse_disagreeing(timings, outputs, calls, reference, plain[reference], tolerance)
    taken = interleave(calls, seconds, on_progress, min_rounds) if calls else {}
    for timing in timings:
        timing.seconds = taken.get(timing.name, [])
    flops = float(sum(s["flops"] for s in model.explain(inputs).steps))
    return Comparison(timings, threads, tolerance, reference, flops, model.measure_peak(), model.device, model.place)


def _ours(model: Model, inputs: Mapping[str, np.ndarray]) -> tuple[Callable[[], Any], Callable[[], list]]:
    given = {k: np.ascontiguousarray(v) if np.ndim(v) else v for k, v in inputs.items()}
    return lambda: model.run(given), lambda: list(model.run(given).values())


def _refuse_disagreeing(timings, outputs, calls, reference, plain, tolerance) -> None:
    """Takes the calls of those who disagree. The reference's own graph optimisations can move its outputs by more than
    the tolerance; its unoptimised outputs then judge."""
    judge = None
    for timing in (t for t in timings if t.name in outputs):
        timing.error = disagreement(outputs[timing.name], outputs[reference])
        if timing.error > tolerance and plain is not None:
            judge = judge or plain()
            second = disagreement(outputs[timing.name], judge)
            if second <= tolerance:
                timing.note = f"{second:.1e} to {reference} unoptimised, {timing.error:.1e} to it optimised"
                timing.error = second
        if not timing.error <= tolerance:
            timing.refused = f"outputs differ from {reference}: {timing.error:.1e} > {tolerance:.0e}"
            del calls[timing.name]


def random_inputs(
    model: Model, shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0, free: int = 1
) -> dict[str, np.ndarray]:
    """Inputs of the model's types: normal floats, small ids, masks of ones; free extents not in `shapes` become `free`."""
    rng = np.random.default_rng(seed)
    shapes = dict(shapes or {})
    made = {}
    for spec in model.inputs:
        declared = spec.shape or ()
        shape = tuple(shapes.get(spec.name, [d if isinstance(d, int) else free for d in declared]))
        made[spec.name] = random_array(rng, spec.name, spec.zeros().dtype, shape)
    return made


def random_array(rng: np.random.Generator, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if dtype == np.bool_ or "mask" in name:
        return np.ones(shape, dtype)
    if np.issubdtype(dtype, np.integer):
        # Ids index a table: below 64 fits nearly every vocabulary; type ids have only 0 and often 1.
        return np.zeros(shape, dtype) if "type" in name else rng.integers(0, 64, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)
