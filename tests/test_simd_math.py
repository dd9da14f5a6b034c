# SPDX-License-Identifier: Apache-2.0
"""The errors that kernels/simd/*.h state for each vector function, held against float64 on every instruction set."""

import math

import numpy as np
import pytest
from support import ISAS, node_model, run_everywhere

RNG = np.random.default_rng(1)
SETS = [i for i in ("baseline", "avx2", "avx512") if i in ISAS]
# Every 20011th float of either sign, and where activations live.
FLOATS = np.arange(0, 2**32, 20011, dtype=np.uint64).astype(np.uint32).view(np.float32)
USUAL = (RNG.normal(size=150_000) * 4).astype(np.float32)
NEAR_ZEROS = np.concatenate([np.arange(1, 20_000) * (np.pi / 2), 1 + RNG.normal(size=20_000) * 1e-3]).astype(np.float32)
SAMPLES = np.concatenate([FLOATS, USUAL, NEAR_ZEROS, -NEAR_ZEROS])

erf = np.vectorize(math.erf, otypes=[np.float64])
erfc = np.vectorize(math.erfc, otypes=[np.float64])


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    return np.where(x < -87.3, 0, 1 / (1 + np.exp(-x)))


# operator: (float64 function, ulp with fused multiply-add, ulp without)
IN_ULP = {
    "Exp": (np.exp, 1.1, 1.1),
    "Log": (np.log, 0.9, 0.9),
    "Erf": (erf, 5.0, 7.0),
    "Tanh": (np.tanh, 4.7, 6.3),
    "Sigmoid": (sigmoid, 2.5, 2.5),
    "Softplus": (softplus, 2.2, 2.2),
    "Sin": (np.sin, 2.0, 2.0),
    "Cos": (np.cos, 2.0, 2.0),
    "Tan": (np.tan, 3.6, 3.6),
    "Asin": (np.arcsin, 2.3, 2.3),
    "Acos": (np.arccos, 1.3, 1.3),
    "Atan": (np.arctan, 1.5, 1.5),
    "Sinh": (np.sinh, 1.7, 1.7),
    "Cosh": (np.cosh, 1.6, 1.6),
    "Asinh": (np.arcsinh, 2.0, 2.0),
    "Acosh": (np.arccosh, 2.4, 2.4),
    "Atanh": (np.arctanh, 2.4, 2.4),
}
# operator: (float64 function, error as a share of max(|x|, 1))
OF_SCALE = {
    "Gelu": (lambda x: 0.5 * x * erfc(-x / math.sqrt(2)), 3e-7),
    "Mish": (lambda x: x * np.tanh(softplus(x)), 2e-7),
    "Swish": (lambda x: x * sigmoid(x), 2e-7),
}


def ulp(y):
    return 2.0 ** (np.floor(np.log2(np.maximum(np.abs(y), 2.0**-126))) - 23)


def compare(op, inputs, reference):
    """Yields (label, error against float64 where the result is finite); infinities and NaN have to be equal."""
    with np.errstate(all="ignore"):
        exact = reference(*(x.astype(np.float64) for x in inputs))
        rounded = exact.astype(np.float32)
    finite = np.isfinite(rounded)
    model = node_model(op, inputs)
    for label, (y,) in run_everywhere(model, {f"x{i}": x for i, x in enumerate(inputs)}, isas=SETS, threads=(1,)):
        np.testing.assert_array_equal(y[~finite], rounded[~finite], err_msg=f"{op} [{label}]")
        assert np.isfinite(y[finite]).all(), (
            f"{op} [{label}] overflows early at {inputs[0][finite & ~np.isfinite(y)][:3]}"
        )
        yield label, np.abs(y[finite] - exact[finite]), exact[finite], finite


@pytest.mark.parametrize("op", IN_ULP)
def test_error_in_ulp(op):
    reference, fused, plain = IN_ULP[op]
    for label, error, exact, finite in compare(op, [SAMPLES], reference):
        worst = error / ulp(exact)
        if op == "Sigmoid":
            worst[SAMPLES[finite] < -87.3] = 0  # denormal results are 0, as said
        i = int(worst.argmax())
        limit = plain if label.startswith("baseline") else fused
        assert worst[i] <= limit, f"{op} [{label}]: {worst[i]:.2f} ulp at {SAMPLES[finite][i]!r}"


@pytest.mark.parametrize("op", OF_SCALE)
def test_error_as_a_share_of_the_scale(op):
    reference, limit = OF_SCALE[op]
    x = SAMPLES[np.isfinite(SAMPLES)]
    for label, error, _, finite in compare(op, [x], reference):
        worst = error / np.maximum(np.abs(x[finite].astype(np.float64)), 1)
        i = int(worst.argmax())
        assert worst[i] <= limit, f"{op} [{label}]: {worst[i]:.2g} at {x[finite][i]!r}"


def test_pow_in_ulp():
    x = np.concatenate([np.exp(RNG.normal(size=60_000) * 3), 1 + RNG.normal(size=30_000) * 1e-3]).astype(np.float32)
    y = np.concatenate([RNG.normal(size=60_000) * 5, RNG.normal(size=30_000) * 3e4]).astype(np.float32)
    for label, error, exact, _ in compare("Pow", [x, y], np.power):
        assert (error / ulp(exact)).max() <= 1.3, label


def test_a_lane_has_the_same_bits_wherever_it_stands():
    x = USUAL[:67]
    for op in ("Exp", "Tanh", "Gelu", "Sin", "Log"):
        model = node_model(op, [x])
        whole = dict(run_everywhere(model, {"x0": np.abs(x)}, isas=SETS, threads=(1,)))
        for first, last in [(1, 67), (5, 6), (30, 49)]:
            for label, (y,) in run_everywhere(model, {"x0": np.abs(x)[first:last]}, isas=SETS, threads=(1,)):
                np.testing.assert_array_equal(y, whole[label][0][first:last], err_msg=f"{op} [{label}]")
