"""A source without some of its tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from .base import TensorInfo, TensorSource


class RemainingTensors(TensorSource):
    """What is left of a source; closing it does not close the source."""

    def __init__(self, source: TensorSource, without: Collection[str]):
        self._source = source
        self.description = source.description
        self.metadata = source.metadata
        self.prefix = source.prefix
        self._tensors = {n: info for n, info in source.tensors.items() if n not in without}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The tensors that are left."""
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        """Load one of them."""
        self.info(name)
        return self._source.load(name)
