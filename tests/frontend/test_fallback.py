# SPDX-License-Identifier: Apache-2.0
"""The reference fallback on single nodes: values of every kind, what onnx.reference lacks, errors in words."""

import numpy as np
import pytest

from fastinfer import InputError, UnsupportedError
from fastinfer.fallback import Fallback


def run(op, inputs, n_outputs=1, domain="", **attrs):
    node = {"op": op, "domain": domain, "name": "n", "attrs": attrs}
    return Fallback([node])(0, inputs, [True] * n_outputs)


def test_several_nodes_and_repeated_calls():
    nodes = [{"op": op, "domain": "", "name": op, "attrs": {}} for op in ("Relu", "Neg")]
    fallback = Fallback(nodes)
    for x in (np.array([-1.0, 2.0]), np.zeros((0, 3), np.float32)):
        np.testing.assert_array_equal(fallback(1, [x], [True])[0], -x)
        np.testing.assert_array_equal(fallback(0, [x], [True])[0], np.maximum(x, 0))


def test_attributes_of_every_kind():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(run("Transpose", [x], perm=["ints", [1, 0]])[0], x.T)
    np.testing.assert_allclose(run("Elu", [-x], alpha=["f", 2.0])[0], 2 * np.expm1(-x), rtol=1e-6)
    assert run("Cast", [x], to=["i", 7])[0].dtype == np.int64
    value = np.array([3], np.int16)
    assert run("ConstantOfShape", [np.array([2])], value=["tensor", value])[0].dtype == np.int16
    labels = run("LabelEncoder", [np.array(["b"], object)], domain="ai.onnx.ml",
                 keys_strings=["strings", ["a", "b"]], values_floats=["floats", [1.0, 2.0]])  # fmt: skip
    np.testing.assert_array_equal(labels[0], np.float32([2]))


def test_missing_and_unwanted():
    x = np.array([1.0, 5.0], np.float32)
    np.testing.assert_array_equal(run("Clip", [x, None, np.float32(3)])[0], [1, 3])
    np.testing.assert_array_equal(run("Clip", [x, None, None])[0], x)
    node = {"op": "TopK", "domain": "", "name": "n", "attrs": {}}
    outputs = Fallback([node])(0, [x, np.array([1])], [False, True])
    assert len(outputs) == 2 and outputs[1] == [1]
    assert len(run("Dropout", [x], 2)) == 2


def test_sequences_optionals_strings():
    a, b = np.zeros(2), np.ones(3)
    (seq,) = run("SequenceConstruct", [a, b])
    assert isinstance(seq, list)
    np.testing.assert_array_equal(run("SequenceAt", [seq, np.array(1)])[0], b)
    assert run("SequenceLength", [seq])[0] == 2
    assert run("Optional", [])[0] is None
    assert not run("OptionalHasElement", [None])[0]
    np.testing.assert_array_equal(run("OptionalGetElement", [a])[0], a)
    with pytest.raises(InputError, match="no element"):
        run("OptionalGetElement", [None])
    text = np.array([b"ab", b"c"], object)
    (joined,) = run("StringConcat", [text, np.array(["x", "y"], object)])
    assert joined.dtype == object and joined.tolist() == ["abx", "cy"]


def test_zip_map():
    (maps,) = run(
        "ZipMap", [np.array([[0.1, 0.9]], np.float32)], domain="ai.onnx.ml", classlabels_int64s=["ints", [3, 4]]
    )
    assert list(maps[0]) == [3, 4] and maps[0][4] == np.float32(0.9)


def test_operators_that_the_reference_lacks():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    want = (np.abs(x) ** 3).sum((2, 3), keepdims=True) ** (1 / 3)
    np.testing.assert_allclose(run("GlobalLpPool", [x], p=["i", 3])[0], want, rtol=1e-5)
    rois = np.array([[1, 0, 0, 3, 3]], np.float32)
    (pooled,) = run("MaxRoiPool", [x, rois], pooled_shape=["ints", [2, 2]])
    np.testing.assert_array_equal(pooled[0, :, 0, 0], x[1, :, :2, :2].max((1, 2)))
    (mapped,) = run("CategoryMapper", [np.array(["b", "z"], object)], domain="ai.onnx.ml",
                    cats_strings=["strings", ["a", "b"]], cats_int64s=["ints", [1, 2]])  # fmt: skip
    assert mapped.tolist() == [2, -1]
    for kind in ("Gelu", "Mish", "HardSwish", "MeanVarianceNormalization"):  # only known by their function body
        assert run(kind, [x])[0].shape == x.shape
    groups = run("GroupNormalization", [x[:, :2], np.ones(2, np.float32), np.zeros(2, np.float32)], num_groups=["i", 2])
    np.testing.assert_allclose(groups[0].mean((2, 3)), 0, atol=1e-6)


def test_random_operators_have_their_distribution():
    p = np.full(20000, 0.3, np.float32)
    (drawn,) = run("Bernoulli", [p])
    assert drawn.dtype == np.float32 and set(np.unique(drawn)) == {0, 1} and abs(drawn.mean() - 0.3) < 0.02
    (seeded,) = run("Bernoulli", [p], seed=["f", 1.0], dtype=["i", 11])
    assert seeded.dtype == np.float64 and abs(seeded.mean() - 0.3) < 0.02
    logits = np.log(np.array([[0.2, 0.8]], np.float32))
    (classes,) = run("Multinomial", [logits], sample_size=["i", 20000], seed=["f", 3.0])
    assert classes.dtype == np.int32 and abs(classes.mean() - 0.8) < 0.02
    np.testing.assert_array_equal(
        run("Multinomial", [logits], sample_size=["i", 9], seed=["f", 3.0])[0], classes[:, :9]
    )


def test_fused_operators_by_their_bodies():
    a, b, bias = (
        np.random.default_rng(i).standard_normal(s).astype(np.float32) for i, s in enumerate([(2, 3), (3, 4), (4,)])
    )
    (y,) = run("MatMul", [a, b, bias], domain="fastinfer", activation=["s", "relu"])
    np.testing.assert_allclose(y, np.maximum(a @ b + bias, 0), rtol=1e-5)


def test_errors_name_the_node():
    with pytest.raises(InputError, match=r"MatMul 'n'.*float64\[2\]"):
        run("MatMul", [np.zeros(2), np.zeros((3, 4))])
    with pytest.raises(UnsupportedError, match="com.example.Foo 'n'"):
        run("Foo", [np.zeros(2)], domain="com.example")
    with pytest.raises(UnsupportedError, match="Foo 'n'"):
        run("Foo", [np.zeros(2)])
    with pytest.raises(UnsupportedError, match="subgraphs"):
        run("If", [np.array(True)], then_branch=["graph", 0])
