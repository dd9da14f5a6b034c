# SPDX-License-Identifier: Apache-2.0
"""Upgrade rules of normalisations, softmax, dropout and spatial operators."""

from __future__ import annotations

import numpy as np

from fastinfer.frontend.edit import Edit, constant_of, known_dim, known_rank

# ----------------------------------------------------------------------------------------------- normalisation


def batch_norm_spatial(edit: Edit) -> None:
    """BatchNormalization-7 with spatial=0 has statistics per element of a sample: plain arithmetic."""
    if edit.take("spatial", 1):
        return
    if any(edit.used(i) for i in range(1, 5)):
        raise edit.unsupported("training outputs together with spatial=0")
    x, scale, bias, mean, var = edit.node.inputs
    epsilon = edit.constant_like(edit.get("epsilon", 1e-5), var)
    deviation = edit.op("Sqrt", [edit.op("Add", [var, epsilon])])
    normal = edit.op("Div", [edit.op("Sub", [x, mean]), deviation])
    edit.replace(edit.op("Add", [edit.op("Mul", [normal, scale]), bias]), *[None] * (len(edit.node.outputs) - 1))


def batch_norm_outputs(edit: Edit) -> None:
    """BatchNormalization-9: five outputs meant training; they became training_mode=1 and three outputs."""
    node = edit.node
    if len(node.outputs) == 1:
        return
    if not any(edit.used(i) for i in range(1, len(node.outputs))):
        node.resize_outputs(1)
        return
    x, *rest = node.inputs
    attributes = {name: edit.get(name, default) for name, default in (("epsilon", 1e-5), ("momentum", 0.9))}
    y, mean, var = edit.op("BatchNormalization", [x, *rest], {**attributes, "training_mode": 1}, n_outputs=3)
    saved = [_batch_mean(edit, x), _batch_variance(edit, x)]
    edit.replace(*[y, mean, var, *saved][: len(node.outputs)])


def _all_but_channel(edit: Edit, x):
    rank = known_rank(x)
    if rank is None:
        raise edit.unsupported("batch statistics of an input of unknown rank")
    return edit.constant([i for i in range(rank) if i != 1])


def _batch_mean(edit: Edit, x):
    return edit.op("ReduceMean", [x, _all_but_channel(edit, x)], {"keepdims": 0})


def _batch_variance(edit: Edit, x):
    axes = _all_but_channel(edit, x)
    centred = edit.op("Sub", [x, edit.op("ReduceMean", [x, axes])])
    return edit.op("ReduceMean", [edit.op("Mul", [centred, centred]), axes], {"keepdims": 0})


def group_norm_scale(edit: Edit) -> None:
    """GroupNormalization-18: scale and bias per group → per channel, each repeated C / num_groups times."""
    x, groups = edit.node.inputs[0], edit.get("num_groups")
    channels = known_dim(x, 1)
    if channels is not None:
        target = edit.constant([groups, channels // groups])
    else:
        extent = edit.op("Shape", [x], {"start": 1, "end": 2})
        target = edit.op(
            "Concat", [edit.constant([groups]), edit.op("Div", [extent, edit.constant([groups])])], {"axis": 0}
        )
    for i in (1, 2):
        column = edit.op("Unsqueeze", [edit.node.inputs[i], edit.constant([1])])
        edit.set_input(i, edit.op("Reshape", [edit.op("Expand", [column, target]), edit.constant([-1])]))


def dropout(edit: Edit) -> None:
    """Dropout-7, -10 at inference: the input itself, and a mask of ones (bool from 10 on)."""
    x = edit.node.inputs[0]
    mask = None
    if edit.used(1):
        true = edit.op("Constant", [], {"value": _scalar(True)})
        mask = edit.op("Expand", [true, edit.op("Shape", [x])])
        if edit.version < 10:
            mask = edit.op("CastLike", [mask, x])
    outputs = [edit.op("Identity", [x]) if edit.used(0) else None, mask]
    edit.replace(*outputs[: len(edit.node.outputs)])


def _scalar(value):
    import onnx_ir as ir

    return ir.tensor(np.asarray(value))


def softmax_axis(edit: Edit) -> None:
    """Softmax, LogSoftmax, Hardmax below 13 normalise over all axes from `axis` (default 1) on, as one."""
    x, axis = edit.node.inputs[0], edit.take("axis", 1)
    rank = known_rank(x)
    if axis == -1 or (rank is not None and axis % max(rank, 1) == rank - 1):
        edit.set("axis", -1)
        return
    flat = edit.op("Flatten", [x], {"axis": axis})
    normal = edit.op(edit.node.op_type, [flat], {"axis": -1})
    edit.replace(edit.op("Reshape", [normal, edit.op("Shape", [x])], {"allowzero": 1}))


# ----------------------------------------------------------------------------------------------------- spatial


def grid_sample_modes(edit: Edit) -> None:
    """GridSample-16: bilinear and bicubic are called linear and cubic from 20 on."""
    mode = edit.get("mode", "bilinear")
    edit.set("mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


def roi_align_mode(edit: Edit) -> None:
    """RoiAlign-10 has no half-pixel shift, which became the default in 16."""
    edit.set("coordinate_transformation_mode", "output_half_pixel")


def upsample_scales(edit: Edit) -> None:
    """Upsample-7: attribute scales → input 1."""
    edit.set_input(1, edit.constant(edit.take("scales"), np.float32))


def upsample_to_resize(edit: Edit) -> None:
    """Upsample-9(x, scales) → Resize(x, , scales) with asymmetric coordinates, rounded down."""
    edit.node.op_type = "Resize"
    scales = edit.node.inputs[1]
    edit.set_input(1, None)
    edit.set_input(2, scales)
    edit.set("coordinate_transformation_mode", "asymmetric")
    if edit.get("mode", "nearest") == "nearest":
        edit.set("nearest_mode", "floor")
    elif edit.get("mode") in ("bilinear", "trilinear"):
        edit.set("mode", "linear")


def resize_10(edit: Edit) -> None:
    """Resize-10(x, scales): asymmetric coordinates; the nearest neighbour is rounded down where an axis grows and up
    where it shrinks (ONNX 1.5's test cases). From 11 on these are attributes, one rounding for all axes."""
    x, scales = edit.node.inputs
    edit.set_input(1, None)
    edit.set_input(2, scales)
    edit.set("coordinate_transformation_mode", "asymmetric")
    if edit.get("mode", "nearest") == "nearest":
        known = constant_of(scales)
        if known is None or ((known < 1).any() and (known > 1).any()):
            one = edit.constant(1, np.float32)
            attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            edit.set_input(0, edit.op("Resize", [x, None, edit.op("Max", [scales, one])], attributes))
            edit.set_input(2, edit.op("Min", [scales, one]))
            edit.set("nearest_mode", "ceil")
        else:
            edit.set("nearest_mode", "ceil" if (known < 1).any() else "floor")
    elif edit.get("mode") in ("bilinear", "trilinear"):
        edit.set("mode", "linear")


def resize_empty_inputs(edit: Edit) -> None:
    """Resize-11 requires roi and scales, and takes empty tensors for 'not given'."""
    for i in (1, 2):
        value = constant_of(edit.input(i))
        if value is not None and value.size == 0:
            edit.set_input(i, None)


# For floor and round_prefer_floor, nearest of u equals this rounding of u - 1/2, so half_pixel says the same.
_SHIFTED_ROUNDING = {"floor": "round_prefer_ceil", "round_prefer_floor": "ceil"}


def resize_tf_half_pixel(edit: Edit) -> None:
    """Resize-11's tf_half_pixel_for_nn, (i + 1/2) / scale, went away in 13."""
    if edit.get("coordinate_transformation_mode") != "tf_half_pixel_for_nn":
        return
    mode = edit.get("nearest_mode", "round_prefer_floor")
    if edit.get("mode", "nearest") != "nearest" or mode not in _SHIFTED_ROUNDING:
        raise edit.unsupported(f"tf_half_pixel_for_nn with mode {edit.get('mode')} and nearest_mode {mode}")
    edit.set("coordinate_transformation_mode", "half_pixel")
    edit.set("nearest_mode", _SHIFTED_ROUNDING[mode])
