# SPDX-License-Identifier: Apache-2.0
"""onnx.backend.base.Backend, so that ONNX's own suite can judge fastinfer.

>>> from onnx.backend.test import BackendTest
>>> globals().update(BackendTest(fastinfer.onnx_backend, __name__).test_cases)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.backend.base import Backend, BackendRep

import fastinfer


class PreparedModel(BackendRep):
    """A compiled model behind ONNX's interface: a list (or dict by name) of values in, a tuple of values out."""

    def __init__(self, model: fastinfer.Model) -> None:
        super().__init__()
        self.model = model

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        if isinstance(inputs, Mapping):
            return tuple(self.model.run(inputs).values())
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        names = [spec.name for spec in self.model.inputs]
        if len(inputs) != len(names):
            raise fastinfer.InputError(f"given {len(inputs)} inputs, needed {len(names)}: {', '.join(names)}")
        return tuple(self.model.run(dict(zip(names, inputs, strict=True))).values())


class FastinferBackend(Backend):
    """Runs models and single nodes on the CPU."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> PreparedModel:
        if not cls.supports_device(device):
            raise fastinfer.UnsupportedError(f"device '{device}' given, only CPU is available")
        return PreparedModel(fastinfer.compile(model, **kwargs))

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Runs one node of the default domain's opset `opset_version` (default 26) on arrays, one for each named input."""
        version = kwargs.pop("opset_version", 26)
        ports = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in zip([name for name in node.input if name], map(np.asarray, inputs), strict=True)
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], "node", ports, outputs)
        imports = [helper.make_opsetid("", version)]
        if node.domain not in ("", "ai.onnx"):
            imports.append(helper.make_opsetid(node.domain, 1))
        return cls.run_model(helper.make_model(graph, opset_imports=imports), list(inputs), device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.upper() == "CPU"


prepare = FastinferBackend.prepare
run_model = FastinferBackend.run_model
run_node = FastinferBackend.run_node
supports_device = FastinferBackend.supports_device
