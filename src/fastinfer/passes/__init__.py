# SPDX-License-Identifier: Apache-2.0
"""Graph rewriting: `PIPELINE` is the list of passes, `run_pipeline` applies it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from . import pattern
from .allow_bf16 import allow_bf16
from .channels_last import channels_last
from .eliminate_common_subexpressions import eliminate_common_subexpressions
from .eliminate_dead_code import eliminate_dead_code
from .eliminate_identity import eliminate_identity
from .fold_batch_norm import fold_batch_norm
from .fold_constants import fold_constants
from .fold_pad import fold_pad
from .fold_qdq import fold_qdq
from .fuse_attention import fuse_attention
from .fuse_conv import fuse_conv
from .fuse_matmul import fuse_matmul, unflatten_matmul
from .fuse_matmul_integer import fuse_matmul_integer
from .fuse_pointwise import fuse_pointwise
from .fuse_skip_norm import fuse_skip_norm
from .gather_rows import gather_rows
from .inline_branches import inline_branches
from .lower_attention import lower_attention
from .lower_contrib import lower_contrib
from .lower_group_query import lower_group_query
from .merge_movements import expose_heads, merge_movements
from .pack_sequences import independent_rows as independent_rows
from .pack_sequences import pack_sequences as pack_sequences
from .read_planes import read_planes
from .recognize_activations import recognize_activations
from .recognize_gelu import recognize_gelu
from .recognize_group_norm import recognize_group_norm
from .recognize_norm import recognize_norm
from .recognize_softmax import recognize_softmax
from .simplify_shapes import simplify_shapes
from .store_bf16 import store_bf16
from .widen_half import widen_half

Pass = Callable[[ir.Model], bool]

PIPELINE: list[Pass] = [
    eliminate_dead_code,
    fold_constants,
    inline_branches,
    widen_half,
    lower_contrib,
    lower_group_query,
    simplify_shapes,
    eliminate_identity,
    fold_constants,
    eliminate_common_subexpressions,
    recognize_gelu,
    recognize_activations,
    recognize_softmax,
    recognize_norm,
    recognize_group_norm,
    fold_pad,
    fold_batch_norm,
    expose_heads,
    fuse_attention,
    lower_attention,
    unflatten_matmul,
    fold_constants,
    simplify_shapes,
    eliminate_identity,
    merge_movements,
    fuse_matmul,
    fuse_conv,
    fuse_skip_norm,
    channels_last,
    fold_qdq,
    fuse_matmul_integer,
    merge_movements,
    gather_rows,
    eliminate_identity,
    fuse_pointwise,
    eliminate_common_subexpressions,
    read_planes,
    eliminate_dead_code,
]

# What follows the pipeline for a precision that was asked for.
PRECISIONS: dict[str, list[Pass]] = {"fp32": [], "bf16": [allow_bf16, store_bf16]}


def run_pipeline(
    model: ir.Model,
    *,
    precision: str = "fp32",
    verify: bool = False,
    sample_inputs: Mapping[str, np.ndarray] | None = None,
) -> ir.Model:
    """Rewrites `model` (opset 26, in place) into standard and `fastinfer` operators; graph inputs and outputs keep their names.

    precision: a key of PRECISIONS.
    verify: check the graph after every pass, and with sample_inputs also its results.

    Raises:
        verify.VerificationError: a pass broke the graph; the message names the pass and those before it.
    """
    steps = PIPELINE + PRECISIONS[precision]
    if verify:
        return _run_verified(model, steps, sample_inputs)
    for step in steps:
        step(model)
    return _finish(model)


def _finish(model: ir.Model) -> ir.Model:
    if any(node.domain == pattern.DOMAIN for node in model.graph.all_nodes()):
        model.graph.opset_imports[pattern.DOMAIN] = 1
    pattern.make_names_unique(model)
    return model


def _run_verified(model: ir.Model, steps: list[Pass], sample_inputs: Mapping[str, np.ndarray] | None) -> ir.Model:
    from . import verify

    expected = None if sample_inputs is None else verify.run_reference(model, sample_inputs)
    done: list[str] = []
    for step in steps:
        try:
            step(model)
            verify.check_structure(model)
            if expected is not None and sample_inputs is not None:
                verify.check_results(expected, verify.run_reference(model, sample_inputs))
        except Exception as e:
            raise verify.VerificationError(f"after pass {step.__name__} (done before: {', '.join(done)}): {e}") from e
        done.append(step.__name__)
    return _finish(model)
