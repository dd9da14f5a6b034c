# SPDX-License-Identifier: Apache-2.0
"""Shapes of pointwise programs, for tests and benchmarks alike."""

from kernels.case import Case, T


def _program(inputs: tuple[T, ...], *steps: tuple, **more: object) -> Case:
    """steps: (operation, operands...); an operand is an input, or the result of a step, counted on from the inputs."""
    args = [a for _, *operands in steps for a in [*operands, -1, -1, -1][:3]]
    attributes = {"ops": [op for op, *_ in steps], "args": args, "outputs": [len(steps) - 1], **more}
    return Case("Pointwise", inputs, attributes, "fastinfer")


_BERT, _MAP = T((1, 128, 3072)), T((1, 56, 56, 64))

CASES = {
    "add_relu": _program((_MAP, _MAP), ("add", 0, 1), ("relu", 2)),
    "gelu": _program((_BERT,), ("gelu", 0)),
    "gelu_tanh": _program((_BERT,), ("gelu_tanh", 0)),
    "silu": _program((T((1, 160, 160, 32)),), ("silu", 0)),
    "scale_shift": _program((_MAP, T((64,)), T((64,))), ("fma", 0, 1, 2)),
    "gate": _program((T((1, 28, 28, 240)), T((1, 1, 1, 240))), ("sigmoid", 1), ("mul", 0, 2)),
    "large_add": _program((T((1 << 24,)), T((1 << 24,))), ("add", 0, 1)),
    "tiny": _program((T((1, 64)),), ("tanh", 0)),
}
