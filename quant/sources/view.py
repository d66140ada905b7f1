"""Base class of sources that present another source with other names or other tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from .base import TensorInfo, TensorSource
from .stored_weight import StoredWeight


class SourceView(TensorSource):
    """A source that passes everything through from another source.

    A subclass sets ``_tensors`` to the tensors that it lists, and overrides `_origin` to return
    where each comes from. Closing a view closes the source.
    """

    def __init__(self, source: TensorSource, *notes: str):
        self._source = source
        self._tensors: Mapping[str, TensorInfo] = source.tensors
        self.description = source.description
        self.metadata = source.metadata
        self.paths = source.paths
        self.prefix = source.prefix
        self.notes = (*source.notes, *notes)
        self.loras = source.loras
        self.rest = source.rest
        self.comfyui_reads = source.comfyui_reads
        self.linear_layers = source.linear_layers

    def _origin(self, name: str) -> tuple[TensorSource, str]:
        """Return the source a tensor comes from, and its name there."""
        return self._source, name

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by their names in this view."""
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        """Load a tensor by its name in this view."""
        self.info(name)
        source, original = self._origin(name)
        return source.load(original)

    def load_runs(self, name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        """Load parts of a tensor by its name in this view."""
        self.info(name)
        source, original = self._origin(name)
        return source.load_runs(original, starts, length)

    def stored_weight(self, name: str) -> StoredWeight | None:
        """Return how a weight is stored, by its name in this view."""
        self.info(name)
        source, original = self._origin(name)
        return source.stored_weight(original)

    def require_unchanged(self) -> None:
        """Refuse files that changed since they were opened."""
        self._source.require_unchanged()

    def close(self) -> None:
        """Close the source."""
        self._source.close()
