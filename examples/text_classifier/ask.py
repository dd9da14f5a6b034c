# SPDX-License-Identifier: Apache-2.0
"""Sends the test passages to the server at URL one by one, and compares the answers with torch's: ask.py URL.

Needs the standard library and numpy alone.
"""

from __future__ import annotations

import collections
import json
import sys
import urllib.request

import numpy as np

TOLERANCE = 1e-4  # between torch's scores and ours


def ask(url: str, text: np.ndarray) -> tuple[str, np.ndarray]:
    """The Open Inference Protocol with binary tensors: a JSON head, then the bytes. (version, scores)"""
    head = json.dumps({
        "inputs": [{"name": "text", "datatype": "UINT8", "shape": [1, text.size], "parameters": {"binary_data_size": text.size}}],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{url}/v2/models/text/infer", head + text.tobytes(), headers)
    with urllib.request.urlopen(request) as response:
        body = response.read()
        size = int(response.headers["Inference-Header-Content-Length"])
    return json.loads(body[:size])["model_version"], np.frombuffer(body[size:], np.float32)


def compare(url: str) -> None:
    test = np.load("test.npz")
    texts, kinds = test["inputs"], test["kinds"]
    expected = {version: test[f"torch_{version}"] for version in ("1", "2")}
    right, difference, answered = 0, 0.0, collections.Counter[str]()
    for i, text in enumerate(texts):
        version, scores = ask(url, text)
        difference = max(difference, float(np.abs(scores - expected[version][i]).max()))
        right += scores.argmax() == kinds[i]
        answered[version] += 1
    by = ", ".join(f"version {v}: {n}" for v, n in sorted(answered.items()))
    print(
        f"{len(texts)} passages, {right / len(texts):.1%} right, by {by}; greatest difference from torch {difference:.1e}"
    )
    if difference > TOLERANCE:
        sys.exit(f"that is more than {TOLERANCE}")


if __name__ == "__main__":
    compare(sys.argv[1])
