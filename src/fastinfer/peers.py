# SPDX-License-Identifier: Apache-2.0
"""The runtimes that a benchmark compares with, each set to one precision, low latency and a given number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Run:
    """call: one inference on bound inputs. call_for_outputs: the same, giving the outputs in the model's order."""

    call: Callable[[], Any]
    call_for_outputs: Callable[[], list]
    # Outputs without graph optimisations: the judge when two runtimes disagree.
    plain_outputs: Callable[[], list] | None = None


def starter(
    name: str,
    inputs: Mapping[str, np.ndarray],
    threads: int,
    *,
    onnx: Any,
    module: Any,
    precision: str = "fp32",
    device: str = "cpu",
) -> Callable[[], Run]:
    """A function that starts the runtime `name`; starting is deferred because it may fail for this model.

    precision: on the CPU "fp32" or "bf16", which openvino alone has; the others stay in float32. device: other than "cpu",
    torch and inductor run there, in the precisions that they have.
    """
    if name not in PEERS:
        raise KeyError(f"no peer is called '{name}'; known: {', '.join(PEERS)}")
    if device != "cpu" and name in ("torch", "inductor"):
        return lambda: _torch_on_device(dict(inputs), module, device, precision, name == "inductor")
    start = _openvino_bf16 if (name, precision) == ("openvino", "bf16") else PEERS[name]
    return lambda: start(dict(inputs), threads, onnx, module)


def _onnxruntime(inputs: dict[str, np.ndarray], threads: int, onnx: Any, module: Any) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = ort.InferenceSession(_file_or_bytes(onnx, "onnxruntime"), options, providers=["CPUExecutionProvider"])

    def plain() -> list:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return ort.InferenceSession(
            _file_or_bytes(onnx, "onnxruntime"), options, providers=["CPUExecutionProvider"]
        ).run(None, inputs)

    return Run(lambda: session.run(None, inputs), lambda: session.run(None, inputs), plain)


def _openvino_bf16(inputs: dict[str, np.ndarray], threads: int, onnx: Any, module: Any) -> Run:
    return _openvino(inputs, threads, onnx, module, "bf16")


def _openvino(inputs: dict[str, np.ndarray], threads: int, onnx: Any, module: Any, precision: str = "f32") -> Run:
    import openvino as ov

    core = ov.Core()
    model = core.read_model(_file_or_bytes(onnx, "openvino"))
    if any(port.partial_shape.is_dynamic for port in model.inputs):
        # Fixed shapes are its fast path; it is given the one at hand.
        model.reshape({port.any_name: list(inputs[port.any_name].shape) for port in model.inputs})
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()

    def call():
        return request.infer(inputs, share_inputs=True, share_outputs=True)

    return Run(call, lambda: [call()[port] for port in compiled.outputs])


def _torch(inputs: dict[str, np.ndarray], threads: int, onnx: Any, module: Any) -> Run:
    if module is None:
        raise ValueError("torch runs torch modules: give a .pt2 file (torch.export.save) instead of an ONNX file")
    import torch

    torch.set_num_threads(threads)
    tensors = [torch.from_numpy(np.array(x)) for x in inputs.values()]

    def call():
        with torch.inference_mode():
            return module(*tensors)

    return Run(
        call, lambda: [x.numpy() for x in torch.utils._pytree.tree_leaves(call()) if isinstance(x, torch.Tensor)]
    )


def _inductor(inputs: dict[str, np.ndarray], threads: int, onnx: Any, module: Any) -> Run:
    """Inductor with frozen weights: a package that torch compiled ahead of time, else a module compiled on the spot."""
    if module is None:
        raise ValueError("inductor runs torch modules: give a .pt2 file (torch.export.save) instead of an ONNX file")
    import torch

    torch.set_num_threads(threads)
    tensors = [torch.from_numpy(np.array(x)) for x in inputs.values()]
    if isinstance(module, str | os.PathLike):
        compiled = torch._inductor.aoti_load_package(os.fspath(module))
    else:
        compiled = torch.compile(module, options={"freezing": True})

    def call():
        with torch.inference_mode():
            return compiled(*tensors)

    with torch.no_grad():  # frozen weights: the first call compiles, and must not see tensors that need gradients
        compiled(*tensors)
    leaves = torch.utils._pytree.tree_leaves
    return Run(call, lambda: [x.numpy() for x in leaves(call()) if isinstance(x, torch.Tensor)])


def _torch_on_device(inputs: dict[str, np.ndarray], module: Any, device: str, precision: str, inductor: bool) -> Run:
    """From arrays on the host to tensors on the host, as ours. Halves by autocast, as a float32 module is run in them."""
    if module is None:
        raise ValueError("torch runs torch modules: give a .pt2 file (torch.export.save) instead of an ONNX file")
    if precision not in ("fp32", "tf32", "bf16", "f16"):
        raise ValueError(f"torch has no {precision} for a module of floats")
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    half = {"bf16": torch.bfloat16, "f16": torch.float16}.get(precision)
    moved = module.to(device)
    run = torch.compile(moved, mode="max-autotune") if inductor else moved
    tensors = [torch.from_numpy(np.array(x)) for x in inputs.values()]

    def call() -> list:
        with torch.inference_mode(), torch.autocast(device.split(":")[0], half, enabled=half is not None):
            made = run(*[t.to(device, non_blocking=True) for t in tensors])
        return [x.cpu() for x in torch.utils._pytree.tree_leaves(made) if isinstance(x, torch.Tensor)]

    return Run(call, lambda: [(x.float() if x.dtype == torch.bfloat16 else x).numpy() for x in call()])


def _file_or_bytes(onnx: Any, name: str) -> Any:
    if onnx is None:
        raise ValueError(f"{name} needs the model as ONNX")
    return os.fspath(onnx) if isinstance(onnx, str | os.PathLike) else onnx


PEERS: dict[str, Callable[[dict[str, np.ndarray], int, Any, Any], Run]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
    "inductor": _inductor,
}
