"""Where tensors come from: names, shapes and dtypes without loading, one tensor at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType

import torch
from typing_extensions import Self

from ..errors import SourceError
from ..fingerprint import ModelFingerprint, compute_fingerprint


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor before it is loaded."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * self.dtype.itemsize


class TensorSource(ABC):
    """A set of named tensors. Every source, a live model included, looks the same from here."""

    #: What the source is, for messages: a path or "MODEL".
    description: str
    #: The source's own header metadata (kept in the checkpoint).
    metadata: Mapping[str, str]
    #: What the names in the file begin with, and the names here do not.
    prefix: str = ""
    #: Every file it reads from.
    paths: tuple[Path, ...] = ()
    #: Things the user should know about how the source was read.
    notes: tuple[str, ...] = ()

    @property
    @abstractmethod
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the source's own order."""

    @abstractmethod
    def load(self, name: str) -> torch.Tensor:
        """Return one tensor on CPU, in its stored dtype.

        Raises:
            SourceError: no such tensor, or the file cannot be read.
        """

    def close(self) -> None:  # noqa: B027 - optional for sources that hold no file
        """Release files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def info(self, name: str) -> TensorInfo:
        """Return a tensor's name, shape and dtype, or raise `SourceError`."""
        try:
            return self.tensors[name]
        except KeyError:
            raise SourceError(f"{self.description} holds no tensor named {name}") from None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())

    def fingerprint(self) -> ModelFingerprint:
        """Fingerprint the model (loads a handful of 1-D tensors)."""
        return compute_fingerprint({n: i.shape for n, i in self.tensors.items()}, self.load)
