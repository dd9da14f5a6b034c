# SPDX-License-Identifier: Apache-2.0
"""Any model of opset 7 to 26 → the same model in opset 26's form. Opset differences are settled here, once.

Models of opset 6, and older ones whose operators did not change up to it, come along.
UPGRADES maps an operator to its steps, oldest first: (below, rule) runs on nodes written for an opset < below and
leaves the node in the form of opset `below` (or replaces it). What changed its signature without changing the meaning
of old nodes stands in UNCHANGED_MEANING with the reason; a test holds both lists against ONNX's changelog.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from fastinfer.frontend import upgrade_legacy as legacy
from fastinfer.frontend import upgrade_misc as misc
from fastinfer.frontend import upgrade_nn as nn
from fastinfer.frontend import upgrade_shape as shape
from fastinfer.frontend.check_graph import MAX_OPSET, subgraphs
from fastinfer.frontend.edit import Edit, known_rank
from fastinfer.frontend.infer import infer_shapes

Rule = Callable[[Edit], None]

_REDUCTIONS_18 = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

_BROADCASTING_7 = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")

UPGRADES: dict[str, list[tuple[int, Rule]]] = {
    **{op: [(7, legacy.broadcast_axis)] for op in _BROADCASTING_7},
    "BatchNormalization": [(7, legacy.drop_test_mode), (9, nn.batch_norm_spatial), (14, nn.batch_norm_outputs)],
    "Clip": [(11, misc.clip_bounds)],
    "DFT": [(20, misc.dft_axis)],
    "Dropout": [(7, legacy.drop_test_mode), (12, nn.dropout)],
    "GRU": [(7, legacy.drop_output_sequence)],
    "Gemm": [(7, legacy.drop_broadcast)],
    "GridSample": [(20, nn.grid_sample_modes)],
    "GroupNormalization": [(21, nn.group_norm_scale)],
    "Hardmax": [(13, nn.softmax_axis)],
    "LSTM": [(7, legacy.drop_output_sequence)],
    "LogSoftmax": [(13, nn.softmax_axis)],
    "PRelu": [(7, legacy.prelu_slope)],
    "Pad": [(11, shape.pad_inputs)],
    "RNN": [(7, legacy.drop_output_sequence)],
    **{f"Reduce{kind}": [(18, shape.axes_to_input)] for kind in _REDUCTIONS_18},
    "ReduceSum": [(13, shape.axes_to_input)],
    "Resize": [(11, nn.resize_10), (13, nn.resize_empty_inputs), (19, nn.resize_tf_half_pixel)],
    "RoiAlign": [(16, nn.roi_align_mode)],
    "Scan": [(9, misc.scan_batch)],
    "Scatter": [(11, misc.scatter_rename)],
    "Slice": [(10, shape.slice_inputs)],
    "Softmax": [(13, nn.softmax_axis)],
    "Split": [(13, shape.split_input), (18, shape.split_num_outputs)],
    "Squeeze": [(13, shape.axes_to_input)],
    "TopK": [(10, misc.topk_input)],
    "Unsqueeze": [(13, shape.axes_to_input)],
    "Upsample": [(7, legacy.upsample_height_width), (9, nn.upsample_scales), (MAX_OPSET + 1, nn.upsample_to_resize)],
}

_DEFAULT_IS_OLD = "the new attribute's default is the old behaviour"
_INPUT_OPTIONAL = "an input became optional; old nodes have it"
_NEW_INPUT = "a new optional input; old nodes leave it out"

# Operators, or steps of them beyond the last rule in UPGRADES, whose changes leave the meaning of old nodes alone.
UNCHANGED_MEANING: dict[str, str] = {
    "ArgMax": _DEFAULT_IS_OLD,
    "ArgMin": _DEFAULT_IS_OLD,
    "Attention": f"{_NEW_INPUT}; {_DEFAULT_IS_OLD}",
    "AveragePool": _DEFAULT_IS_OLD,
    "Cast": _DEFAULT_IS_OLD,
    "CastLike": _DEFAULT_IS_OLD,
    "Constant": "more ways to write the value; sparse ones are made dense by the loader",
    "DepthToSpace": _DEFAULT_IS_OLD,
    "DequantizeLinear": "before 13 the scale is a scalar, for which axis means nothing; " + _DEFAULT_IS_OLD,
    "GRU": _DEFAULT_IS_OLD,
    "GatherND": _DEFAULT_IS_OLD,
    "Gemm": _INPUT_OPTIONAL,
    "LSTM": _DEFAULT_IS_OLD,
    "LpPool": _DEFAULT_IS_OLD,
    "MaxPool": _DEFAULT_IS_OLD,
    "OptionalHasElement": _INPUT_OPTIONAL,
    "QuantizeLinear": "before 13 the scale is a scalar, for which axis means nothing; " + _DEFAULT_IS_OLD,
    "RNN": _DEFAULT_IS_OLD,
    "Reshape": _DEFAULT_IS_OLD,
    "ScatterElements": _DEFAULT_IS_OLD,
    "ScatterND": _DEFAULT_IS_OLD,
    "Shape": _DEFAULT_IS_OLD,
}

# Rules that write a shorter graph when they know the rank of their input.
_WANT_RANK = {"Hardmax", "LogSoftmax", "Softmax", "BatchNormalization", "Clip", "PRelu", *_BROADCASTING_7}


def upgrade_model(model: ir.Model) -> None:
    """Rewrites the model in place; node.version says where a node differs from the model's opset."""
    version = model.opset_imports.get("", MAX_OPSET)
    if any(_wants_rank(node, node.version or version) for node in model.graph.all_nodes()):
        infer_shapes(model)
    upgrade_graph(model.graph, version)
    model.opset_imports[""] = MAX_OPSET


def upgrade_graph(graph: ir.Graph, version: int) -> None:
    for node in list(graph):
        for body in subgraphs(node):
            upgrade_graph(body, version)
        if node.domain == "":
            upgrade_node(node, version)


def upgrade_node(node: ir.Node, version: int) -> None:
    version = version if node.version is None else node.version
    for below, rule in UPGRADES.get(node.op_type, ()):
        if version < below:
            rule(Edit(node, version))
            version = below
        if node.graph is None:
            return
    node.version = MAX_OPSET


def _wants_rank(node: ir.Node, version: int) -> bool:
    if node.domain != "" or node.op_type not in _WANT_RANK or known_rank(node.inputs[0]) is not None:
        return False
    return version < UPGRADES[node.op_type][-1][0]
