# SPDX-License-Identifier: Apache-2.0
"""Every old form computes the same after its upgrade: the old model by onnxruntime or onnx.reference, the new one by
onnx.reference. And the tables cover ONNX's changelog."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from old_forms import check, kinds, node_model, old_result, rand
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fastinfer import UnsupportedError
from fastinfer.frontend import load
from fastinfer.frontend.check_graph import MAX_OPSET, MIN_OPSET
from fastinfer.frontend.upgrade import UNCHANGED_MEANING, UPGRADES

# ------------------------------------------------------------------------------------------------- changelog


def _signature(schema):
    attributes = {name: (a.type.name, a.required, str(a.default_value)) for name, a in schema.attributes.items()}
    inputs = [(i.name, i.option.name) for i in schema.inputs]
    return attributes, inputs, [o.option.name for o in schema.outputs], schema.deprecated


def _changed_operators():
    """Operators whose schema changed between opset 7 and 26 in attributes, inputs or outputs → versions of changes."""
    history = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= MAX_OPSET:
            history.setdefault(schema.name, {})[schema.since_version] = schema
    for name, versions in history.items():
        first = max((v for v in versions if v <= MIN_OPSET), default=min(versions))
        row = [versions[v] for v in sorted(versions) if v >= first]
        changes = [new.since_version for old, new in zip(row, row[1:]) if _signature(old) != _signature(new)]
        if changes:
            yield name, changes


CHANGED = dict(_changed_operators())


@pytest.mark.parametrize("name", CHANGED)
def test_changelog_is_covered(name):
    rules = {below for below, _ in UPGRADES.get(name, ())}
    assert rules or name in UNCHANGED_MEANING, f"{name} changed in {CHANGED[name]}: no rule and no reason"
    if name not in UNCHANGED_MEANING:
        left = set(CHANGED[name]) - rules
        assert not left or name in PARTLY, f"{name} changed in {left} too: add a rule or a reason in PARTLY"


# Changes of operators in UPGRADES that need no rule.
PARTLY = {
    "BatchNormalization": "14's other half renames inputs",
    "DFT": "types",
    "Dropout": "10 only made the mask bool, which the rule of 12 knows",
    "GroupNormalization": "deprecated in 18 for the form of 21",
    "Pad": "18 adds optional axes",
    "Resize": "13 made inputs optional; 18 adds attributes whose defaults are the old behaviour",
    "RoiAlign": "types",
    "Scan": "9 is the only change of meaning",
    "Scatter": "deprecated in 11",
    "Slice": "10's form is today's",
    "TopK": "11 adds largest and sorted, whose defaults are the old behaviour",
    "Upsample": "deprecated in 10",
    "ReduceMax": "20 adds bool",
    "ReduceMin": "20 adds bool",
    "GRU": "14 adds layout, whose default is the old behaviour",
    "LSTM": "14 adds layout, whose default is the old behaviour",
    "RNN": "14 adds layout, whose default is the old behaviour",
    "Gemm": "11 made C optional",
    "Clip": "12 and 13 add types",
    "Softmax": "11 is the old form with negative axes",
}


def test_tables_hold_nothing_else():
    known = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    assert set(UPGRADES) | set(UNCHANGED_MEANING) <= known
    assert set(UNCHANGED_MEANING) <= set(CHANGED)
    for steps in UPGRADES.values():
        assert [below for below, _ in steps] == sorted(below for below, _ in steps)


# ------------------------------------------------------------------------------------------------ moving data


@pytest.mark.parametrize("opset", [7, 11, 12])
@pytest.mark.parametrize("axes", [None, [0], [0, 2]])
def test_squeeze(opset, axes):
    check("Squeeze", [rand(1, 3, 1)], opset, **({} if axes is None else {"axes": axes}))


@pytest.mark.parametrize("opset", [7, 11])
def test_unsqueeze(opset):
    check("Unsqueeze", [rand(3, 4)], opset, axes=[0, 3])


@pytest.mark.parametrize("op", ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"])
@pytest.mark.parametrize("opset", [7, 11, 13, 17])
@pytest.mark.parametrize("attributes", [{}, {"axes": [1]}, {"axes": [0, 2], "keepdims": 0}])
def test_reductions(op, opset, attributes):
    if op == "Sum" and opset >= 13 and "axes" in attributes:
        attributes = {k: v for k, v in attributes.items() if k != "axes"}
    check(f"Reduce{op}", [np.abs(rand(2, 3, 4))], opset, **attributes)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad(mode):
    check("Pad", [rand(3, 4)], 7, pads=[1, 2, 0, 1], mode=mode)


@pytest.mark.parametrize("free", [(), (0,)])
def test_pad_value(free):
    check("Pad", [rand(3, 4)], 10, free=free, pads=[1, 2, 0, 1], value=1.5)


def test_slice():
    check("Slice", [rand(5, 6)], 7, starts=[1, -3], ends=[4, 1000], axes=[0, 1])
    check("Slice", [rand(5, 6)], 9, starts=[1, 2], ends=[-1, 5])


def test_split():
    check("Split", [rand(6, 4)], 7, 2, split=[2, 4], axis=0)
    check("Split", [rand(6, 4)], 11, 2, axis=1)
    check("Split", [rand(6, 4), np.array([1, 5])], 13, 2)
    loaded = check("Split", [rand(6, 4)], 13, 3)
    assert loaded.graph[0].attributes["num_outputs"].value == 3


def test_scatter():
    check("Scatter", [rand(3, 3), np.array([[1, 0, 2], [0, 2, 1]]), rand(2, 3)], 9, axis=0)


def test_topk():
    check("TopK", [rand(3, 8)], 7, 2, k=3, axis=1)
    check("TopK", [rand(3, 8), np.array([2])], 10, 2)


# ------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("free", [(), (0,)])
@pytest.mark.parametrize("bounds", [{}, {"min": -0.5}, {"max": 0.5}, {"min": -0.5, "max": 0.5}])
def test_clip(bounds, free):
    check("Clip", [rand(4, 5)], 7, free=free, **bounds)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("opset", [7, 11])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_softmax(op, opset, axis):
    check(op, [rand(2, 3, 4)], opset, **({} if axis is None else {"axis": axis}))


def test_softmax_is_one_node_where_it_can_be():
    assert kinds(check("Softmax", [rand(2, 3, 4)], 11, axis=2)) == ["Softmax"]
    assert kinds(check("Softmax", [rand(2, 3)], 7)) == ["Softmax"]
    assert kinds(check("Softmax", [rand(2, 3, 4)], 11, axis=-1, free=(0,))) == ["Softmax"]
    assert "Flatten" in kinds(check("Softmax", [rand(2, 3, 4)], 11, axis=-2))
    assert "Flatten" in kinds(check("Softmax", [rand(2, 3, 4)], 11, axis=1, free=(0,)))


def test_dft():
    for attributes in ({}, {"axis": 2}, {"onesided": 1}, {"inverse": 1}):
        x = rand(2, 5, 6, 2 if attributes.get("inverse") else 1)
        model = node_model("DFT", [x], 17, **attributes)
        check("DFT", [x], 17, want=ReferenceEvaluator(model).run(None, {"x0": x}), **attributes)


# ------------------------------------------------------------------------------------------- layers of a network


def test_dropout():
    check("Dropout", [rand(3, 4)], 7, ratio=0.3)
    x = rand(3, 4)
    check("Dropout", [x], 10, 2, want=[x, np.ones((3, 4), bool)], ratio=0.3)
    check("Dropout", [x], 7, 2, want=[x, np.ones((3, 4), np.float32)])


@pytest.mark.parametrize("opset", [7, 9, 14])
def test_batch_norm(opset):
    assert kinds(
        check("BatchNormalization", [rand(2, 3, 4, 4), rand(3), rand(3), rand(3), np.abs(rand(3))], opset)
    ) == ["BatchNormalization"]


def test_batch_norm_per_activation():
    x, scale, bias, mean, var = rand(2, 3, 4), rand(3, 4), rand(3, 4), rand(3, 4), np.abs(rand(3, 4))
    want = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    check("BatchNormalization", [x, scale, bias, mean, var], 7, want=[want], spatial=0)


def test_batch_norm_training():
    x, scale, bias, mean, var = rand(2, 3, 4), rand(3), rand(3), rand(3), np.abs(rand(3))
    m, v = x.mean((0, 2)), x.var((0, 2))
    y = (x - m[:, None]) / np.sqrt(v[:, None] + 1e-5) * scale[:, None] + bias[:, None]
    want = [y, mean * 0.8 + m * 0.2, var * 0.8 + v * 0.2, m, v]
    check("BatchNormalization", [x, scale, bias, mean, var], 9, 5, want=want, momentum=0.8)


@pytest.mark.parametrize("free", [(), (0,)])
def test_group_norm(free):
    x, scale, bias = rand(2, 6, 5), rand(3), rand(3)
    groups = x.reshape(2, 3, -1)
    normal = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
    want = (normal * scale[:, None] + bias[:, None]).reshape(x.shape)
    check("GroupNormalization", [x, scale, bias], 18, want=[want], free=free, num_groups=3)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample(mode):
    check("GridSample", [rand(1, 2, 4, 5), rand(1, 3, 3, 2).clip(-1, 1)], 16, mode=mode)


def test_roi_align():
    x, rois = rand(1, 2, 8, 8), np.array([[0, 0, 5, 6], [1, 2, 7, 7]], np.float32)
    check("RoiAlign", [x, rois, np.zeros(2, np.int64)], 10, output_height=3, output_width=2, sampling_ratio=2)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(mode):
    x, scales = rand(1, 2, 3, 4), np.array([1, 1, 2, 3], np.float32)
    check("Upsample", [x], 7, mode=mode, scales=[1.0, 1.0, 2.0, 3.0])
    check("Upsample", [x, scales], 9, mode=mode)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [[1, 1, 2, 2], [1, 1, 0.5, 0.75], [1, 1, 1.5, 0.75]])
@pytest.mark.parametrize("constant", [False, True])
def test_resize_10(mode, scales, constant):
    x, scales = rand(1, 2, 4, 8), np.array(scales, np.float32)
    model = node_model("Resize", [x, scales], 10, mode=mode)
    want = old_result(model, {"x0": x, "x1": scales})
    if constant:
        model.graph.initializer.append(numpy_helper.from_array(scales, "x1"))
    got = ReferenceEvaluator(ir.to_proto(load(model))).run(None, {"x0": x, **({} if constant else {"x1": scales})})
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rounding", ["floor", "round_prefer_floor"])
@pytest.mark.parametrize("scale", [0.5, 0.6, 1.5, 2.0])
def test_resize_tf_half_pixel(rounding, scale):
    x = rand(1, 1, 5, 7)
    size = [int(np.floor(5 * scale)), int(np.floor(7 * scale))]

    def pick(n, extent):
        u = (np.arange(n, dtype=np.float64) + 0.5) / scale
        index = np.floor(u) if rounding == "floor" else np.ceil(u - 0.5)
        return np.clip(index, 0, extent - 1).astype(int)

    want = x[:, :, pick(size[0], 5)][..., pick(size[1], 7)]
    check("Resize", [x, np.zeros(0, np.float32), np.array([1, 1, scale, scale], np.float32)], 11, want=[want],
          coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode=rounding)  # fmt: skip


def test_resize_unsupported_is_said():
    with pytest.raises(UnsupportedError, match="tf_half_pixel_for_nn"):
        load(node_model("Resize", [rand(1, 1, 4, 4), rand(0), rand(4)], 11, mode="linear",
                        coordinate_transformation_mode="tf_half_pixel_for_nn"))  # fmt: skip


def test_resize_empty_scales():
    node = helper.make_node("Resize", ["x", "roi", "scales", "sizes"], ["y"], mode="linear")
    constants = {"roi": np.zeros(0, np.float32), "scales": np.zeros(0, np.float32), "sizes": np.array([1, 1, 6, 8])}
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", 1, [1, 1, 3, 4])],
                              [helper.make_tensor_value_info("y", 1, None)],
                              [numpy_helper.from_array(v, k) for k, v in constants.items()])  # fmt: skip
    loaded = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8))
    assert [v is None for v in loaded.graph[0].inputs] == [False, True, True, False]


# --------------------------------------------------------------------------------------------- opset 6 and below


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow"])
def test_broadcast_axis(op):
    a, b = np.abs(rand(2, 3, 4, 5)), np.abs(rand(3, 4))
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}[op]
    check(op, [a, b], 6, want=[function(a, b[:, :, None])], broadcast=1, axis=1)
    c = np.abs(rand(4, 5))
    check(op, [a, c], 6, want=[function(a, c)], broadcast=1)


def test_prelu_slope():
    x, slope = rand(2, 3, 4, 4), rand(3)
    check("PRelu", [x, slope], 6, want=[np.where(x < 0, x * slope[:, None, None], x)])


def test_upsample_1():
    x = rand(1, 1, 2, 2)
    loaded = load(node_model("Upsample", [x], 1, height_scale=2.0, width_scale=3.0), native=[])
    got = ReferenceEvaluator(ir.to_proto(loaded)).run(None, {"x0": x})[0]
    np.testing.assert_array_equal(got, x.repeat(2, 2).repeat(3, 3))
