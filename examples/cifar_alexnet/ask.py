# SPDX-License-Identifier: Apache-2.0
"""Sends the test images to the server at URL, and compares the answers with torch's: ask.py URL.

Needs the standard library and numpy alone.
"""

from __future__ import annotations

import collections
import json
import sys
import urllib.request

import numpy as np

TOLERANCE = 1e-3  # between torch's scores and ours; scores go to about 20


def ask(url: str, image: np.ndarray) -> tuple[str, np.ndarray]:
    """The Open Inference Protocol with binary tensors: a JSON head, then the pixels. (version, scores)"""
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": [1, *image.shape],
        "parameters": {"binary_data_size": image.nbytes},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{url}/v2/models/shapes/infer", head + image.tobytes(), headers)
    with urllib.request.urlopen(request) as response:
        body = response.read()
        size = int(response.headers["Inference-Header-Content-Length"])
    return json.loads(body[:size])["model_version"], np.frombuffer(body[size:], np.float32)


def compare(url: str) -> None:
    test = np.load("test.npz")
    images, classes = test["inputs"], test["classes"]
    expected = {version: test[f"torch_{version}"] for version in ("1", "2")}
    right, difference, answered = 0, 0.0, collections.Counter[str]()
    for i, image in enumerate(images):
        version, scores = ask(url, image)
        difference = max(difference, float(np.abs(scores - expected[version][i]).max()))
        right += scores.argmax() == classes[i]
        answered[version] += 1
    by = ", ".join(f"version {v}: {n}" for v, n in sorted(answered.items()))
    print(
        f"{len(images)} images, {right / len(images):.1%} right, by {by}; greatest difference from torch {difference:.1e}"
    )
    if difference > TOLERANCE:
        sys.exit(f"that is more than {TOLERANCE}")


if __name__ == "__main__":
    compare(sys.argv[1])
