"""Recognise the digit in an image by a multinomial logistic regression on its 64 pixels.

``train.py`` fits the weights and stores them, so the judge needs only torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from .digits import DIGITS_PATH


@dataclass(frozen=True)
class Judge:
    """A linear classifier: ``weight`` float32 [10, 64] and ``bias`` float32 [10]."""

    weight: Tensor
    bias: Tensor

    def predict(self, images: Tensor) -> Tensor:
        """Return the digits int64 [B] in ``images`` [B, 8, 8], which are clamped to 0 to 1."""
        pixels = images.detach().float().cpu().clamp(0, 1).flatten(1)
        return (pixels @ self.weight.T + self.bias).argmax(dim=1)

    def accuracy(self, images: Tensor, labels: Sequence[int] | Tensor) -> float:
        """Return the share of ``images`` [B, 8, 8] that show the digit in ``labels`` [B]."""
        return (self.predict(images) == torch.as_tensor(labels).cpu()).float().mean().item()

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to store, by the names that ``load_judge`` reads."""
        return {"judge.weight": self.weight, "judge.bias": self.bias}


def load_judge(path: str | Path | None = None) -> Judge:
    """Load the demo's judge, or the one in ``path``."""
    tensors = load_file(path or DIGITS_PATH)
    return Judge(weight=tensors["judge.weight"], bias=tensors["judge.bias"])
