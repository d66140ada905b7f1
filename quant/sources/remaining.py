"""A source without some of its tensors."""

from __future__ import annotations

from collections.abc import Collection

from .base import TensorSource
from .view import SourceView


class RemainingTensors(SourceView):
    """The tensors of a source except some. Closing it does not close the source."""

    def __init__(self, source: TensorSource, without: Collection[str]):
        super().__init__(source)
        self._tensors = {n: info for n, info in source.tensors.items() if n not in without}

    def close(self) -> None:
        """Leave the source open, because others read it too."""
