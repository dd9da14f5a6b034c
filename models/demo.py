# SPDX-License-Identifier: Apache-2.0
"""`make demo`: two real trained models read a picture; then their outputs and speed against ONNX Runtime."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import onnxruntime as ort

import fastinfer as fi
from fastinfer import bench
from fastinfer.cli.bench import show
from models import ocr


def main() -> int:
    compiled = {}
    for kind in ("det", "rec"):
        start = time.perf_counter()
        compiled[kind] = fi.compile(ocr.path(kind))
        fallback = len(compiled[kind].fallback_nodes)
        print(f"compiled {ocr.path(kind).name} in {time.perf_counter() - start:.2f} s, {fallback} nodes by reference")

    picture, classes = ocr.draw(), ocr.characters()
    ours = ocr.read(picture, compiled["det"], compiled["rec"], classes)
    peers = {k: ort.InferenceSession(ocr.path(k), providers=["CPUExecutionProvider"]) for k in compiled}
    theirs = ocr.read(
        picture, *(lambda x, s=s: s.run(None, {s.get_inputs()[0].name: x})[0] for s in peers.values()), classes
    )
    print("\nread in the picture:")
    for line in ours:
        print(f"    {line}")
    # This recogniser was trained mostly on Chinese and often leaves out the space between words.
    right = [line.replace(" ", "") for line in ours] == [line.replace(" ", "") for line in ocr.LINES]
    print(
        f"as drawn: {'yes' if right else f'NO, drawn was {ocr.LINES}'}; as ONNX Runtime reads it: {'yes' if ours == theirs else theirs}\n"
    )

    agreed = True
    for kind, x in (("det", ocr.as_input(picture)), ("rec", ocr.line_input(picture[10:74, 20:480]))):
        model = compiled[kind]
        result = bench.compare(model, {model.inputs[0].name: x}, onnx=ocr.path(kind), seconds=2.0)
        show(result, f"{ocr.path(kind).name}  {'x'.join(map(str, x.shape))}")
        print()
        agreed = agreed and not result.ours.refused
    return 0 if right and agreed else 1


if __name__ == "__main__":
    sys.exit(main())
