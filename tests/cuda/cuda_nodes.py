# SPDX-License-Identifier: Apache-2.0
"""One node through cuda.plan: which kernel it got, and what it computed; every buffer is poisoned first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx.reference import ReferenceEvaluator

from fastinfer import _core
from fastinfer.cuda.device import open_device
from fastinfer.cuda.plan import make_plan
from fastinfer.cuda.precision import precision_of
from fastinfer.cuda.program import DeviceProgram
from fastinfer.cuda.tuning import Tuner
from fastinfer.lower import lower
from kernels.case import node_model

POISON = 0xA5  # of every byte that no step has written; as floats: small, as integers: odd


class Untuned(Tuner):
    """Every family's default, whatever this machine's disk remembers."""

    def choose(self, family: Any, problem: Any) -> Any:
        return family.default(problem)


def array_of(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()


def on_device(run: Callable[..., Any], *tensors: torch.Tensor | None, **given: Any) -> None:
    """run(*tensors, **given) with the host's tensors on the device; what it wrote comes back into them."""
    device = open_device("cuda").torch
    placed = lambda t: t.to(device) if isinstance(t, torch.Tensor) else t  # noqa: E731
    first, named = [placed(t) for t in tensors], {k: placed(t) for k, t in given.items()}
    run(*first, **named)
    for host, there in zip([*tensors, *given.values()], [*first, *named.values()]):
        if there is not host:
            host.copy_(there)


def run_node(
    op: str,
    inputs: Sequence[np.ndarray | None],
    *,
    n_outputs: int = 1,
    domain: str = "",
    constants: Sequence[int] = (),
    precision: str = "fp32",
    **attrs: Any,
) -> tuple[list[np.ndarray], list[str]]:
    """(the outputs, the names of the steps). constants: inputs that are initializers."""
    model = node_model(op, list(inputs), n_outputs, domain=domain, constants=constants, **attrs)
    device = open_device("cuda")
    program = DeviceProgram(lower(ir.from_proto(model)), device, precision_of(precision))
    feeds = [a for i, a in enumerate(inputs) if a is not None and i not in constants]
    plan = make_plan(program, [(_core.dtype_code(a.dtype), a.shape) for a in feeds], Untuned(device))
    for kept in plan.kept[:1] + [t.view(-1).view(torch.uint8) for t in plan.outputs if t.numel()]:
        kept.fill_(POISON)
    for buffer, given in zip(plan.inputs, feeds, strict=True):
        buffer.copy_(torch.from_numpy(np.array(given, order="C")))
    plan.launch()
    return [array_of(t) for t in plan.outputs], [s.kernel for s in plan.steps]


def check_node(
    op: str,
    inputs: Sequence[np.ndarray | None],
    *,
    kernel: str = "triton",
    expected: Sequence[np.ndarray] | None = None,
    n_outputs: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    **given: Any,
) -> None:
    """Against `expected` or onnx.reference; some step's name starts with `kernel`, none with "torch"."""
    if expected is None:
        attrs = {k: v for k, v in given.items() if k not in ("constants", "precision", "domain")}
        model = node_model(op, list(inputs), n_outputs, domain=given.get("domain", ""), **attrs)
        feeds = {f"x{i}": a for i, a in enumerate(inputs) if a is not None}
        with np.errstate(all="ignore"):
            expected = ReferenceEvaluator(model).run(None, feeds)
    outputs, steps = run_node(op, inputs, n_outputs=n_outputs, **given)
    if any(np.size(e) for e in expected):
        assert any(s.startswith(kernel) for s in steps), f"{op}: {steps}"
    assert not any(s.startswith("torch") for s in steps), f"{op}: {steps}"
    for got, want in zip(outputs, expected, strict=True):
        want = np.asarray(want)
        if given.get("precision", "fp32") != "fp32" and want.dtype == np.float32:
            got = got.astype(np.float32)  # the model leaves its output's type open: it is the stored one
        assert got.shape == want.shape and got.dtype == want.dtype, f"{op}: {got.dtype}{got.shape}"
        if want.dtype.kind in "biu":
            np.testing.assert_array_equal(got, want, err_msg=op)
        else:
            got, want = got.astype(np.float64), want.astype(np.float64)
            np.testing.assert_allclose(got, want, rtol=rtol, atol=atol, equal_nan=True, err_msg=op)
