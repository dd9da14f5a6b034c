# SPDX-License-Identifier: Apache-2.0
"""Makes the table of configurations that the package brings for a GPU: `PYTHONPATH=src:benchmarks python tools/tune_gpu.py`.

On a machine with the GPU: races the candidates of all kernels of the product and convolution layers of benchmarks/gpu and of its
models, batch 1 and 32, and writes the winners to src/fastinfer/cuda/tuned/CHIP.json (--out elsewhere), after each layer and
model: what --seconds cuts short goes on where it stopped when it is called again on the same build, driver and chip.

`--predict` needs no GPU: it plans the same problems, runs nothing, and writes what the package would choose as a table of kind
"predicted". That is for reading: default() is the cost model, so such a table in the package would change nothing, and none is shipped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
Job = tuple[str, Callable[[], tuple[Any, Sequence[np.ndarray]]]]  # a name; (the model, its inputs), when it is called


def jobs(models: list[str], batches: list[int], precision: str, tiny: bool) -> Iterator[Job]:
    """Layers, then models."""
    from gpu import convolutions, products
    from gpu.layers import model_of

    def made(layer: products.Layer) -> tuple[Any, Sequence[np.ndarray]]:
        return model_of(layer.nodes, layer.x.shape, layer.constants, layer.precision, False), [layer.x]

    for layer in products.layers(real=not tiny):
        yield f"{layer.precision} product {layer.x.shape}", lambda layer=layer: made(layer)
    for batch in batches:
        for shape in convolutions.TINY if tiny else convolutions.LAYERS:
            yield f"convolution {shape}, batch {batch}", lambda s=shape, b=batch: made(_convolution(b, *s[:5]))
    for name in models:
        for batch in batches:
            yield f"{name}, batch {batch}", lambda n=name, b=batch: _model(n, b, precision)


def _convolution(batch: int, cin: int, size: int, cout: int, kernel: int, stride: int) -> Any:
    from gpu.products import Layer
    from onnx import helper

    rng, pad = np.random.default_rng(cin + cout), kernel // 2
    x = rng.standard_normal((batch, cin, size, size), np.float32)
    w = rng.standard_normal((cout, cin, kernel, kernel), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], pads=[pad] * 4, strides=[stride] * 2),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    return Layer(nodes, x, {"w": w, "b": rng.standard_normal(cout, np.float32)}, "bf16")


def _model(name: str, batch: int, precision: str) -> tuple[Any, Sequence[np.ndarray]]:
    from gpu.models import _example

    import fastinfer as fi

    module, inputs = _example(name, batch)
    return fi.compile(module, inputs, device="cuda", precision=precision), [t.numpy() for t in inputs]


def predict(model: Any, arrays: Sequence[np.ndarray]) -> dict[str, str]:
    """Problem → what the package would choose, of the plan for these inputs."""
    from fastinfer.cuda.plan import NotPlannable, make_plan
    from fastinfer.cuda.tuning import config_text

    executor = model._executor
    signature, _ = executor._signature(arrays)
    try:
        asked = executor._tuner.problems(lambda: make_plan(executor.program, signature, executor._tuner))
    except NotPlannable:
        return {}
    return {key: config_text(family.default(problem)) for key, (family, problem) in asked.items()}


def race(model: Any, arrays: Sequence[np.ndarray], most: int | None, settled: dict[str, str]) -> dict[str, str]:
    tuner = model._executor._tuner
    tuner.most, tuner.settled = most, settled
    return model._executor.tune(list(arrays))


def run(options: argparse.Namespace) -> Path:
    from fastinfer.cuda import shipped
    from fastinfer.cuda.device import H200, open_device
    from fastinfer.cuda.tuning import about

    device = open_device("cuda")
    facts = dict(about(device))
    if options.predict:
        facts["machine"] = H200[0]
    kind, raced = ("predicted", "none") if options.predict else ("measured", str(options.most or "all"))
    path = options.out or ROOT / "src/fastinfer/cuda/tuned" / shipped.file_name(device.name)
    before = shipped.read(path)
    winners = before.winners if before and (before.kind, dict(before.about)) == (kind, facts) else {}
    ends = time.monotonic() + options.seconds
    names = [n for n in options.models.split(";") if n]
    for name, make in jobs(names, [int(b) for b in options.batches.split(";")], options.precision, options.tiny):
        if time.monotonic() > ends:
            print(f"{options.seconds} seconds are over before {name}: call again to go on", file=sys.stderr)
            break
        began = time.monotonic()
        model, arrays = make()
        new = predict(model, arrays) if options.predict else race(model, arrays, options.most, winners)
        print(f"{name}: {len(new.keys() - winners.keys())} new problems, {time.monotonic() - began:.1f} s", flush=True)
        winners = {**winners, **new}
        shipped.Table(kind, facts, time.strftime("%Y-%m-%d"), raced, winners).write(path)
    print(f"{len(winners)} problems, {kind}, in {path}")
    return path


def main(arguments: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the table; with --predict there is no other place for it")
    parser.add_argument("--models", help="names of benchmarks/suite, with ; between; default: those of benchmarks/gpu")
    parser.add_argument("--batches", default="1;32")
    parser.add_argument("--precision", default="bf16", help="of the models")
    parser.add_argument("--most", type=int, help="candidates of a problem, by its family's order; default: all")
    parser.add_argument("--seconds", type=float, default=480, help="nothing more is begun after these")
    parser.add_argument("--predict", action="store_true", help="without a GPU: what the package would choose")
    parser.add_argument("--tiny", action="store_true", help="small layers, which the interpreter can run")
    options = parser.parse_args(arguments)
    if options.predict:
        os.environ.setdefault("FASTINFER_CUDA", "interpret")
        if options.out is None:
            parser.error("--predict needs --out: a predicted table is not for the package, whose defaults are the same")
    if options.models is None:
        from gpu.models import NAMES

        options.models = "" if options.tiny else ";".join(NAMES)
    return run(options)


if __name__ == "__main__":
    main()
