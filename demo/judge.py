"""Says which digit an image shows: a multinomial logistic regression on its 64 pixels.

The weights are fitted by ``train.py`` and stored, so judging needs nothing but torch.
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
        """Digits int64 [B] that ``images`` [B, 8, 8], clamped to their range 0 to 1, show."""
        pixels = images.detach().float().cpu().clamp(0, 1).flatten(1)
        return (pixels @ self.weight.T + self.bias).argmax(dim=1)

    def accuracy(self, images: Tensor, labels: Sequence[int] | Tensor) -> float:
        """Fraction of ``images`` [B, 8, 8] that show the digit in ``labels`` [B]."""
        return (self.predict(images) == torch.as_tensor(labels).cpu()).float().mean().item()

    def tensors(self) -> dict[str, Tensor]:
        """The tensors to store, by the names that ``load_judge`` reads."""
        return {"judge.weight": self.weight, "judge.bias": self.bias}


def load_judge(path: str | Path | None = None) -> Judge:
    """Read the shipped judge, or the one in ``path``."""
    tensors = load_file(path or DIGITS_PATH)
    return Judge(weight=tensors["judge.weight"], bias=tensors["judge.bias"])
