"""A checkpoint whose tensors are compared with their digests as they are read."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..files.digest import digest_of_tensor
from ..sources import TensorSource
from ..sources.view import SourceView
from .digests import has_digests, header_problems, read_digests, read_head


class CheckedFile(SourceView):
    """View of an open checkpoint that notes which tensors differ from what was written.

    Attributes:
        damaged: names of tensors whose digests differ, in the order of reading.
    """

    def __init__(self, source: TensorSource):
        super().__init__(source)
        self._recorded = read_digests(source.metadata) if len(source.paths) == 1 else None
        self._proven: set[str] = set()
        self.damaged: list[str] = []

    @property
    def has_digests(self) -> bool:
        """Whether the file was written with digests."""
        return len(self.paths) == 1 and has_digests(self.metadata)

    def load(self, name: str) -> torch.Tensor:
        """Read a tensor; the first time, compare it with its digest."""
        tensor = super().load(name)
        wanted = self._recorded.tensors.get(name) if self._recorded else None
        if wanted is not None and name not in self._proven and name not in self.damaged:
            if digest_of_tensor(tensor) == wanted:
                self._proven.add(name)
            else:
                self.damaged.append(name)
        return tensor

    def is_proven(self, name: str) -> bool:
        """Whether a tensor was read and is as it was written."""
        return name in self._proven

    def header(self) -> tuple[list[str], list[str]]:
        """Return the problems of the header, and notes on it."""
        if not self.has_digests:
            note = "the file has no digests, so changed bits may stay unseen"
            return [], [note]
        return header_problems(read_head(self.paths[0]), self.metadata)

    def unread(self) -> list[str]:
        """Return the tensors with digests that were not compared yet."""
        known = self._recorded.tensors if self._recorded else {}
        done = self._proven.union(self.damaged)
        return [name for name in self.tensors if name in known and name not in done]

    def problems(self) -> Iterator[str]:
        """Yield the tensors that differ from what was written, once all were read."""
        for name in self.damaged:
            yield f"{name}: the tensor is damaged: its bytes are not those that were written"
        if self._recorded is None:
            return
        for name in self.tensors:
            if name not in self._recorded.tensors:
                yield f"{name}: the tensor was added since the file was written"
        for name in self._recorded.tensors:
            if name not in self.tensors:
                yield f"{name}: the tensor is missing, which the file had when it was written"
