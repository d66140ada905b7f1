"""Tensors that note whether their shape is read."""

from __future__ import annotations

from typing import Any

import torch


class WatchedTensor:
    """A stand-in for a tensor in a state dict. It answers as the tensor does."""

    def __init__(self, tensor: torch.Tensor):
        self._tensor = tensor
        self.was_read = False

    def __getattr__(self, name: str) -> Any:
        self.was_read |= name in ("shape", "size", "ndim", "numel")
        return getattr(self._tensor, name)
