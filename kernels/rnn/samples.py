# SPDX-License-Identifier: Apache-2.0
"""Shapes of recurrent layers, for tests and benchmarks alike."""

# name → (operator, steps, batch, input size, hidden size, directions)
MODELS = {
    "lstm_classifier": ("LSTM", 64, 1, 64, 128, 1),
    "silero_vad": ("LSTM", 1, 1, 128, 128, 1),
    "crnn": ("LSTM", 24, 1, 512, 256, 2),
    "gru_keywords": ("GRU", 50, 1, 40, 154, 1),
}
