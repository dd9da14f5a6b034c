# SPDX-License-Identifier: Apache-2.0
"""One node as data: what benchmarks/kernels.py times and the tests check. Every family's samples.py has CASES of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes  # noqa: F401  numpy then knows bfloat16
import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class T:
    """An input: normal numbers times `scale`, small integers (below `below`), or `values`. constant: an initializer of the model."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    constant: bool = False
    values: Any = None
    below: int = 0
    scale: float = 1.0

    def array(self, rng: np.random.Generator) -> np.ndarray:
        if self.values is not None:
            return np.asarray(self.values, self.dtype).reshape(self.shape)
        dtype = np.dtype(self.dtype)
        if dtype.kind == "b":
            return rng.random(self.shape) < 0.5
        if dtype.kind in "iu":
            low = 0 if self.below else int(np.iinfo(dtype).min)
            return rng.integers(low, self.below or int(np.iinfo(dtype).max) + 1, self.shape).astype(dtype)
        return (self.scale * rng.standard_normal(self.shape)).astype(dtype)


def W(*shape: int, dtype: str = "float32", scale: float = 1.0) -> T:
    """A constant weight."""
    return T(shape, dtype, constant=True, scale=scale)


def const(values: Any, dtype: str = "int64") -> T:
    return T(np.shape(values), dtype, constant=True, values=values)


@dataclass(frozen=True)
class Case:
    """One node."""

    op: str
    inputs: tuple[T | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""
    outputs: int = 1

    def arrays(self, seed: int = 0) -> list[np.ndarray | None]:
        rng = np.random.default_rng(seed)
        return [None if t is None else t.array(rng) for t in self.inputs]

    @property
    def constants(self) -> tuple[int, ...]:
        return tuple(i for i, t in enumerate(self.inputs) if t is not None and t.constant)

    def model(self, arrays: Sequence[np.ndarray | None]) -> ModelProto:
        return node_model(
            self.op, arrays, self.outputs, domain=self.domain, constants=self.constants, **self.attributes
        )

    def feeds(self, arrays: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
        return {f"x{i}": a for i, a in enumerate(arrays) if a is not None and i not in self.constants}


def last(op: str, *inputs: T | None, outputs: int = 1, **attributes: Any) -> Case:
    """An operator of the domain fastinfer on [N, spatial..., C] data."""
    return Case(op, inputs, {**attributes, "channels_last": 1}, "fastinfer", outputs)


def conv(size: int, channels: int, out: int, kernel: int = 3, stride: int = 1, *, group: int = 1,
         dtype: str = "float32", **more: Any) -> Case:  # fmt: skip
    """A convolution of one square map of `dtype`, padded to keep its size (divided by the stride), with bias."""
    pad = more.get("dilations", [1])[0] * (kernel - 1) // 2
    weights = W(out, channels // group, kernel, kernel)
    window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "group": group}
    return last("Conv", T((1, size, size, channels), dtype), weights, W(out), **window, **more)


def node_model(
    op: str, inputs: Sequence[Any], n_outputs: int = 1, *, domain: str = "", constants: Sequence[int] = (),
    opset: int = 26, **attrs: Any,
) -> ModelProto:  # fmt: skip
    """A one-node ModelProto. inputs: arrays (None: left out); constants: indices of inputs that are initializers.
    Input i is called x{i}, output i y{i}; shapes are left free (rank only)."""
    names = ["" if a is None else f"x{i}" for i, a in enumerate(inputs)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(n_outputs)], name="under_test", domain=domain)
    node.attribute.extend(helper.make_attribute(k, v) for k, v in attrs.items() if v is not None)
    ports, initializers = [], []
    for i, a in enumerate(inputs):
        if a is None:
            continue
        if i in constants:
            initializers.append(numpy_helper.from_array(np.asarray(a), f"x{i}"))
        else:
            dims = [f"d{i}_{k}" for k in range(np.asarray(a).ndim)]
            code = helper.np_dtype_to_tensor_dtype(np.asarray(a).dtype)
            ports.append(helper.make_tensor_value_info(f"x{i}", code, dims))
    outs = [helper.make_tensor_value_info(f"y{i}", TensorProto.UNDEFINED, None) for i in range(n_outputs)]
    graph = helper.make_graph([node], "g", ports, outs, initializers)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in ("com.microsoft", "fastinfer"))]
    return helper.make_model(graph, opset_imports=imports, ir_version=11)
