# SPDX-License-Identifier: Apache-2.0
"""The kernels that run() would launch for a problem, compiled for sm_90."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from sm90 import Compiled, compile

from fastinfer.cuda.kernels import gemm
from fastinfer.cuda.kernels.gemm_stream import rows_of_piece

TYPES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.int8: "i8", torch.float8_e4m3fn: "fp8e4nv",
}  # fmt: skip
KERNELS = {
    "tiled": "gemm:_tiled",
    "persistent": "gemm:_persistent",
    "split_k": "gemm:_split",
    "stream_k": "gemm_stream:_stream",
}
SIZES = ("m", "n", "k", "lda", "ldb", "inner", "a_outer", "a_inner", "b_outer", "b_inner", "residual_z", "residual_m", "residual_n",
         "programs")  # fmt: skip
STREAM = ("full", "rest", "streams")
SCALARS = ("alpha", "beta", "act_alpha", "act_beta")
EPILOGUE = ("PARTS", "BATCHED", "SEGMENTS", "BIAS", "RESIDUAL", "SCALED", "ACTIVATION")


def compiled(p: gemm.Problem, c: gemm.Config, fixed: Mapping[str, object] | None = None) -> Compiled:
    """fixed: arguments that the launcher makes constants of, as it does with 1 and None."""
    count, length = gemm.segments(p)
    operand, out = TYPES[p.dtype], TYPES[p.out]
    a, b = "*" + operand, "*" + operand
    if c.tma:
        a = f"tensordesc<{operand}[{c.bk}, {c.bm}]>" if p.trans_a else f"tensordesc<{operand}[{c.bm}, {c.bk}]>"
        b = f"tensordesc<{operand}[{c.bn}, {c.bk}]>" if p.trans_b else f"tensordesc<{operand}[{c.bk}, {c.bn}]>"
    flags = {
        "SEGMENT": length, "TRANS_A": p.trans_a, "TRANS_B": p.trans_b, "EVEN_K": p.k % c.bk == 0, "PRODUCTS": p.products,
        "TMA": c.tma, "BM": c.bm, "BN": c.bn, "BK": c.bk, "GROUP": c.group, "PARTS": c.parts, "BATCHED": bool(p.batch), "SEGMENTS": count,
        "BIAS": p.bias, "RESIDUAL": p.residual, "SCALED": p.quantized, "ACTIVATION": p.activation,
    }  # fmt: skip
    types = {
        "a": a, "b": b, "c": "*" + out, "bias": "*" + out, "residual": "*" + out, "a_scale": "*fp32", "b_scale": "*fp32",
        "work": "*i32" if p.products == "int8" else "*fp32", **dict.fromkeys(SIZES, "i32"), **dict.fromkeys(SCALARS, "fp32"),
        **dict.fromkeys(STREAM, "i32"),
    }  # fmt: skip
    if c.variant == "split_k":
        flags = {k: v for k, v in flags.items() if k not in EPILOGUE}
        kept: tuple[str, ...] = ("a", "b", "work", "m", "n", "k", "lda", "ldb")
    elif c.variant == "stream_k":
        del flags["BATCHED"]
        without = ("inner", "a_outer", "a_inner", "b_outer", "b_inner", "residual_z", "programs")
        kept = tuple(k for k in types if k not in without)
    else:
        del flags["SEGMENTS"]
        without = ("work", *STREAM) if c.variant == "persistent" else ("work", *STREAM, "programs")
        kept = tuple(k for k in types if k not in without)
    fixed = {"residual_n": 1} if fixed is None else fixed
    return compile(
        f"fastinfer.cuda.kernels.{KERNELS[c.variant]}",
        {k: types[k] for k in kept if k not in fixed},
        {**flags, **{k: v for k, v in fixed.items() if k in kept}},
        {"num_warps": c.num_warps, "num_stages": c.num_stages},
        unaligned=("m", "programs", *STREAM),
    )


def compiled_reduction(p: gemm.Problem) -> Compiled:
    """Of a split problem's workspace."""
    out = TYPES[p.out]
    types = {
        "work": "*i32" if p.products == "int8" else "*fp32", "c": "*" + out, "bias": "*" + out, "residual": "*" + out,
        "a_scale": "*fp32", "b_scale": "*fp32", "m": "i32", "n": "i32", "residual_m": "i32", **dict.fromkeys(SCALARS, "fp32"),
    }  # fmt: skip
    flags = {
        "residual_n": 1, "SEGMENTS": gemm.segments(p)[0], "BIAS": p.bias, "RESIDUAL": p.residual, "SCALED": p.quantized,
        "ACTIVATION": p.activation, "BM": gemm._REDUCE_ROWS, "BN": gemm._REDUCE_COLUMNS,
    }  # fmt: skip
    return compile("fastinfer.cuda.kernels.gemm:_reduce", types, flags, {"num_warps": 4}, unaligned=("m",))


def compiled_mending(p: gemm.Problem, c: gemm.Config) -> Compiled:
    """Of the tiles that "stream_k" shares."""
    out = TYPES[p.out]
    sizes = dict.fromkeys(("m", "n", "k", "residual_m", *STREAM), "i32")
    types = {
        "work": "*i32" if p.products == "int8" else "*fp32", "c": "*" + out, "bias": "*" + out, "residual": "*" + out,
        "a_scale": "*fp32", "b_scale": "*fp32", **sizes, **dict.fromkeys(SCALARS, "fp32"),
    }  # fmt: skip
    flags = {
        "residual_n": 1, "SEGMENTS": gemm.segments(p)[0], "BIAS": p.bias, "RESIDUAL": p.residual, "SCALED": p.quantized,
        "ACTIVATION": p.activation, "BM": c.bm, "BN": c.bn, "BK": c.bk, "GROUP": c.group, "ROWS": rows_of_piece(c.bm, c.bn),
    }  # fmt: skip
    return compile("fastinfer.cuda.kernels.gemm_stream:_mend", types, flags, {"num_warps": 4}, unaligned=("m", *STREAM))
