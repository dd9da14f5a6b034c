# SPDX-License-Identifier: Apache-2.0
"""Shapes of recurrent layers, for tests and benchmarks alike."""

from kernels.case import Case, T, W

# name → (operator, steps, batch, input size, hidden size, directions)
MODELS = {
    "lstm_classifier": ("LSTM", 64, 1, 64, 128, 1),
    "silero_vad": ("LSTM", 1, 1, 128, 128, 1),
    "crnn": ("LSTM", 24, 1, 512, 256, 2),
    "gru_keywords": ("GRU", 50, 1, 40, 154, 1),
}


def _layer(op: str, steps: int, batch: int, size: int, hidden: int, directions: int) -> Case:
    gates = {"LSTM": 4, "GRU": 3}[op] * hidden
    small = hidden**-0.5  # larger weights make the recurrence chaotic: rounding would grow
    weights = W(directions, gates, size, scale=small), W(directions, gates, hidden, scale=small)
    inputs = (T((steps, batch, size)), *weights, W(directions, 2 * gates))
    direction = "bidirectional" if directions == 2 else "forward"
    return Case(op, inputs, {"hidden_size": hidden, "direction": direction})


# What benchmarks/kernels.py times.
CASES = {name: _layer(*shape) for name, shape in MODELS.items()}
