# SPDX-License-Identifier: Apache-2.0
"""The harness of the operator tests: one node, every instruction set, 1 and 2 threads, against a reference."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from fastinfer import Model, _core
from fastinfer.lower import lower
from kernels.case import node_model

ALL_ISAS = ["baseline", "avx2", "avx512", "avx512vnni", "avx512bf16"]
ISAS = ALL_ISAS[: ALL_ISAS.index(_core.detected_isa()) + 1]


def build(model, *, threads=1, strict=True):
    """Lower a ModelProto as it stands: no upgrade, no passes. What the operator tests run."""
    return Model(lower(ir.from_proto(model)), threads=threads, strict=strict)


def run_everywhere(model, feeds, *, strict=True, isas=None, threads=(1, 2)):
    """Run on every instruction set and thread count; yields (label, outputs). Bits must agree across thread counts."""
    try:
        for isa in isas or ISAS:
            _core.force_isa(isa)
            first = None
            for t in threads:
                outputs = list(build(model, threads=t, strict=strict).run(feeds).values())
                if first is not None:
                    for a, b in zip(first, outputs, strict=True):
                        np.testing.assert_array_equal(a, b, err_msg=f"{isa}: {threads[0]} and {t} threads differ")
                first = outputs
                yield f"{isa}, {t} threads", outputs
    finally:
        _core.force_isa(_core.detected_isa())


def check_node(op, inputs, n_outputs=1, *, expected=None, rtol=1e-5, atol=1e-6, domain="", constants=(), strict=True,
               isas=None, **attrs):  # fmt: skip
    """Compare one node with ``expected`` (arrays), or with onnx.reference when that is None. Checks dtype and shape."""
    model = node_model(op, inputs, n_outputs, domain=domain, constants=constants, **attrs)
    feeds = {f"x{i}": np.asarray(a) for i, a in enumerate(inputs) if a is not None and i not in constants}
    if expected is None:
        expected = ReferenceEvaluator(model).run(None, feeds)
    for label, outputs in run_everywhere(model, feeds, strict=strict, isas=isas):
        for got, want in zip(outputs, expected, strict=True):
            want = np.asarray(want)
            assert got.dtype == want.dtype, f"{op} [{label}]: dtype {got.dtype}, expected {want.dtype}"
            assert got.shape == want.shape, f"{op} [{label}]: shape {got.shape}, expected {want.shape}"
            if want.dtype.kind in "biuc" or want.dtype == object:
                np.testing.assert_array_equal(got, want, err_msg=f"{op} [{label}]")
            else:
                np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=rtol, atol=atol,
                                           equal_nan=True, err_msg=f"{op} [{label}]")  # fmt: skip


def check_same_bits(op, inputs, *, batch_inputs=(0,), n_outputs=1, domain="", constants=(), isas=None, **attrs):
    """Property 4: each row of the batch axis (axis 0 of ``batch_inputs``) has the bits that it has alone."""
    model = node_model(op, inputs, n_outputs, domain=domain, constants=constants, **attrs)
    feeds = {f"x{i}": np.asarray(a) for i, a in enumerate(inputs) if a is not None and i not in constants}
    rows = feeds[f"x{batch_inputs[0]}"].shape[0]
    together = dict(run_everywhere(model, feeds, isas=isas))
    for r in range(rows):
        alone = {k: v[r : r + 1] if int(k[1:]) in batch_inputs else v for k, v in feeds.items()}
        for label, outputs in run_everywhere(model, alone, isas=isas):
            for got, whole in zip(outputs, together[label], strict=True):
                np.testing.assert_array_equal(got, whole[r : r + 1], err_msg=f"{op} [{label}]: row {r} alone")
