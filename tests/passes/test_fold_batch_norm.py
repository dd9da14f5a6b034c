# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.fold_batch_norm import fold_batch_norm

from .graphs import check, parse, random, run_onnxruntime

BN = "y = BatchNormalization(c, gamma, beta, mean, var)"


def _parameters(n: int) -> dict[str, np.ndarray]:
    return {
        "gamma": random(n, seed=1), "beta": random(n, seed=2), "mean": random(n, seed=3), "var": np.abs(random(n, seed=4)) + 0.1,
    }  # fmt: skip


LINEAR = {
    "Conv": ("c = Conv(x, w)", "2,4,6,6", (6, 4, 3, 3)),
    "Conv with bias": ("c = Conv(x, w, b)", "2,4,6,6", (6, 4, 3, 3)),
    "grouped": ("c = Conv<group=2>(x, w, b)", "2,4,6,6", (6, 2, 3, 3)),
    "ConvTranspose": ("c = ConvTranspose(x, w, b)", "2,4,6,6", (4, 6, 3, 3)),
    "grouped ConvTranspose": ("c = ConvTranspose<group=2>(x, w, b)", "2,4,6,6", (4, 3, 3, 3)),
    "Gemm": ("c = Gemm(x, w, b)", "2,4", (4, 6)),
    "Gemm transposed": ("c = Gemm<transB=1>(x, w, b)", "2,4", (6, 4)),
}


def _model(text: str, x: str, w: tuple[int, ...], rank: int, **more: np.ndarray):
    constants = {"w": random(*w), "b": random(6, seed=5), **more}
    kinds = "".join(f", float[{','.join(map(str, v.shape))}] {k}" for k, v in constants.items())
    return parse(f"g (float[{x}] x{kinds}) => (float[{','.join('ABCD'[:rank])}] y) {{ {text} }}", **constants)


@pytest.mark.parametrize("form", LINEAR)
def test_into_the_weights(form: str) -> None:
    text, x, w = LINEAR[form]
    shape = tuple(map(int, x.split(",")))
    model = _model(f"{text} {BN}", x, w, len(shape), **_parameters(6))
    op = text.split()[2].split("(")[0].split("<")[0]
    assert check(model, fold_batch_norm, {"x": random(*shape)}, run=run_onnxruntime) == {op: 1}


@pytest.mark.parametrize("tail", ["y = Mul(c, k)", "y = Add(k, c)", "y = Sub(c, k)", "y = Div(c, k)"])
def test_scales_and_shifts(tail: str) -> None:
    model = _model(f"c = Conv(x, w, b) {tail}", "2,4,6,6", (6, 4, 3, 3), 4, k=np.abs(random(6, 1, 1)) + 0.5)
    assert check(model, fold_batch_norm, {"x": random(2, 4, 6, 6)}) == {"Conv": 1}


def test_after_a_matmul() -> None:
    model = _model(f"c = MatMul(x, w) {BN}", "5,4", (4, 6), 2, **_parameters(6))
    assert check(model, fold_batch_norm, {"x": random(5, 4)}) == {"MatMul": 1, "Add": 1}


def test_alone_it_is_a_scale_and_a_shift() -> None:
    model = _model(BN.replace("(c,", "(x,"), "2,6,3,3", (1,), 4, **_parameters(6))
    assert check(model, fold_batch_norm, {"x": random(2, 6, 3, 3)}) == {"Mul": 1, "Add": 1}


def test_a_second_reader_keeps_the_convolution() -> None:
    model = _model(
        f"c = Conv(x, w) {BN.replace('y =', 'n =')} y = Add(n, c)", "2,4,6,6", (6, 4, 3, 3), 4, **_parameters(6)
    )
    assert check(model, fold_batch_norm, {"x": random(2, 4, 6, 6)}) == {"Conv": 1, "Mul": 1, "Add": 2}


def test_weights_shared_by_two_convolutions_are_folded_apart() -> None:
    model = _model(
        f"c = Conv(x, w) {BN.replace('y =', 'n =')} d = Conv(x, w) y = Add(n, d)",
        "2,4,6,6",
        (6, 4, 3, 3),
        4,
        **_parameters(6),
    )
    assert check(model, fold_batch_norm, {"x": random(2, 4, 6, 6)}) == {"Conv": 2, "Add": 1}
