# SPDX-License-Identifier: Apache-2.0
"""Trains two versions of an LSTM that tells Python, English and C++ apart, and compiles each into one file.

Writes v1.safetensors, v2.safetensors, and test.npz: passages that neither version has seen, their kinds, and what torch
answers to them.
"""

from __future__ import annotations

import numpy as np
import torch
from data import KINDS, samples
from torch import nn

import fastinfer as fi


class TextClassifier(nn.Module):
    """uint8 [rows, LENGTH] → scores [rows, kinds]. What it remembers after each byte is averaged over the passage."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 24)
        self.lstm = nn.LSTM(24, hidden, batch_first=True)
        self.scores = nn.Linear(hidden, len(KINDS))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embedding(text.int()))
        return self.scores(states.mean(1))


def train(model: nn.Module, text: torch.Tensor, kind: torch.Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(text), (64,))
        loss = nn.functional.cross_entropy(model(text[rows]), kind[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    torch.manual_seed(0)
    text, kind, test_text, test_kind = map(torch.from_numpy, samples(train=4000, test=200))
    answers = {}
    for version, hidden, steps in (("1", 32, 150), ("2", 64, 300)):
        model = TextClassifier(hidden)
        train(model, text, kind, steps)
        model.eval()
        with torch.no_grad():
            answers[f"torch_{version}"] = (scores := model(test_text)).numpy()
        accuracy = (scores.argmax(1) == test_kind).float().mean()
        # The number of rows stays free: the server puts several requests into one call.
        compiled = fi.compile(model, (text[:2],), dynamic_shapes={"text": {0: torch.export.Dim("rows")}})
        compiled.save(f"v{version}.safetensors")
        print(f"version {version}: {accuracy:.1%} of {len(test_text)} test passages are right (chance: 33.3%)")
    np.savez("test.npz", inputs=test_text.numpy(), kinds=test_kind.numpy(), **answers)


if __name__ == "__main__":
    main()
