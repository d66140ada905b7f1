"""A state dict in memory as a source."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .base import TensorInfo, TensorSource


class StateDictSource(TensorSource):
    """Tensors already in memory, on any device."""

    def __init__(
        self,
        state_dict: Mapping[str, torch.Tensor],
        description: str = "state dict",
        metadata: Mapping[str, str] | None = None,
    ):
        self.description = description
        self.metadata = dict(metadata or {})
        self._state_dict = state_dict
        self._tensors = {
            name: TensorInfo(name, tuple(tensor.shape), tensor.dtype)
            for name, tensor in state_dict.items()
        }

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        """Return the tensor itself, or a copy on CPU if it is on another device."""
        self.info(name)
        return self._state_dict[name].detach().cpu()
