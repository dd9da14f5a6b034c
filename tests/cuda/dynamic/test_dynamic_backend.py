# SPDX-License-Identifier: Apache-2.0
"""ONNX's own node cases through dynamic.py, on CPU tensors: what runs by torch, and what on the host."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import test_onnx_backend as backend
import torch

from fastinfer import frontend
from fastinfer.cuda.device import open_device
from fastinfer.cuda.dtypes import to_numpy
from fastinfer.cuda.dynamic import Dynamic
from fastinfer.cuda.precision import precision_of
from fastinfer.cuda.program import DeviceProgram
from fastinfer.lower import lower

# Of 1589 cases that draw no random numbers.
MIN_PASSES = 1589
MIN_BY_TORCH = 1440
# One unit in the last place of float16: softmax in float32, where the recorded values round after every operation.
LOOSER = {**backend.LOOSER, "test_attention_4d_fp16": 2e-3, "test_attention_4d_causal_fp16": 2e-3}


def _arrays(value):
    if isinstance(value, list):
        return [_arrays(v) for v in value]
    return to_numpy(value) if isinstance(value, torch.Tensor) else value


def _run(case) -> Dynamic:
    program = lower(frontend.load(case.model.SerializeToString()))
    dynamic = Dynamic(DeviceProgram(program, open_device("cuda"), precision_of("fp32")))
    rtol = LOOSER.get(case.name, case.rtol)
    for inputs, outputs in case.data_sets:
        results = dynamic.run([backend._as_array(v) for v in inputs])
        for got, want in zip(results, outputs, strict=True):
            backend.assert_same(_arrays(got), backend._as_array(want), rtol, case.atol)
    return dynamic


@pytest.mark.filterwarnings("ignore")
def test_node_cases(capsys):
    """One test, so that the counts are together: 12 s on one core."""
    passed, by_torch, failed, on_host = 0, 0, {}, Counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, case in backend.NODE_CASES.items():
        if name in backend.EXCLUDED:
            continue
        try:
            with np.errstate(all="ignore"):
                dynamic = _run(case)
        except Exception as e:
            failed[name] = f"{type(e).__name__}: {e}"
            continue
        passed += 1
        by_torch += not dynamic.host_nodes
        on_host.update(dynamic.program.nodes[i]["op"] for i in dynamic.host_nodes)
    torch.set_num_threads(threads)
    with capsys.disabled():
        print(f"\nnode cases on the device's dynamic path: {passed} passed, {by_torch} by torch alone")
        print("on the host:", ", ".join(f"{op} {n}" for op, n in on_host.most_common()))
    assert not failed
    assert passed >= MIN_PASSES
    assert by_torch >= MIN_BY_TORCH
