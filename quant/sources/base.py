"""The interface of sources: list names, shapes and dtypes, and load one tensor at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType

import torch
from typing_extensions import Self

from ..errors import SourceError
from ..fingerprint import ModelFingerprint, compute_fingerprint
from ..formats import WeightFormat
from .stored_weight import StoredWeight


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype's name without ``torch.``."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class AppliedLora:
    """A LoRA file that is merged into a source's weights; ``strength`` is None if unknown."""

    name: str
    strength: float | None

    def __str__(self) -> str:
        strength = "unknown strength" if self.strength is None else f"{self.strength:g}"
        return f"{self.name} at {strength}"


@dataclass(frozen=True)
class StoredAs:
    """How a source stores a quantized weight.

    ``label`` is the name that users see. ``nbytes`` is the size of all its tensors in the file.
    ``format`` is the name of the format that can keep the weight unchanged; empty if there is none.
    """

    label: str
    nbytes: int
    format: str = ""


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape and dtype of a tensor, known before it is loaded.

    ``dtype`` is the stored dtype. For a weight that the source quantizes (see ``stored``), it is
    the dtype of the weight in a checkpoint that does not quantize it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    stored: StoredAs | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes in ``dtype``."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def file_bytes(self) -> int:
        """Size in the source, in bytes."""
        return self.stored.nbytes if self.stored else self.nbytes


class TensorSource(ABC):
    """A set of named tensors. All sources have this interface, also a MODEL in memory."""

    #: The name of the source in messages: a path or "MODEL".
    description: str
    #: The metadata in the source's header, which the checkpoint keeps.
    metadata: Mapping[str, str]
    #: The prefix of the names in the file. The names of this source do not have it.
    prefix: str = ""
    #: Every file that the source reads.
    paths: tuple[Path, ...] = ()
    #: Notes for the user on how the source was read.
    notes: tuple[str, ...] = ()
    #: Other tensors in the file, such as a text encoder or a VAE, as they are stored.
    rest: TensorSource | None = None
    #: Whether ComfyUI's own loader reads the file in the same way as this source.
    comfyui_reads: bool = True
    #: LoRAs that are merged into the weights, in the order of their application.
    loras: tuple[AppliedLora, ...] = ()
    #: Names, without ``.weight``, of the layers that ComfyUI builds with its own Linear. Only these
    #: can be quantized. None where that is not known, as of files.
    linear_layers: frozenset[str] | None = None
    _fingerprint: ModelFingerprint | None = None

    @property
    @abstractmethod
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the source's own order."""

    @abstractmethod
    def load(self, name: str) -> torch.Tensor:
        """Return one tensor on CPU, in its stored dtype or a wider one.

        Merged and decoded weights are float32, because rounding to 16 bits would lose a part of a
        small LoRA. 8-bit floats are float32 too, because torch cannot compute with them. To store a
        tensor unchanged, cast it to ``info(name).dtype``.

        Raises:
            SourceError: there is no such tensor, or the file cannot be read.
        """

    def stored_weight(self, name: str) -> StoredWeight | None:
        """Return how the source stores a quantized weight.

        None if the weight is not quantized, or was changed, for example by a LoRA.
        """
        return None

    def stored_tensors(self, name: str, fmt: WeightFormat) -> Mapping[str, torch.Tensor] | None:
        """Return the stored tensors of a weight by suffix; None unless ``fmt`` stores the same."""
        stored = self.stored_weight(name) if fmt.is_quantized else None
        if stored is None or stored.tensors is None or not stored.fits(fmt):
            return None
        return stored.tensors()

    def load_runs(self, name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        """Return ``length`` consecutive elements from each flat position, ``[starts, length]``.

        Raises:
            SourceError: there is no such tensor, or the file cannot be read.
        """
        values = self.load(name).flatten()
        return torch.stack([values[start : start + length] for start in starts])

    def require_unchanged(self) -> None:  # noqa: B027 - optional for sources that read no file
        """Refuse files that changed since they were opened.

        Raises:
            SourceError: the message names the file and how it changed.
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
        """Return a tensor's name, shape and dtype.

        Raises:
            SourceError: there is no such tensor.
        """
        try:
            return self.tensors[name]
        except KeyError:
            raise SourceError(f"{self.description} holds no tensor named {name}") from None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in the source."""
        return sum(info.file_bytes for info in self.tensors.values())

    def fingerprint(self) -> ModelFingerprint:
        """Return the fingerprint of the model. The first call reads parts of a few tensors."""
        if self._fingerprint is None:
            shapes = {name: info.shape for name, info in self.tensors.items()}
            self._fingerprint = compute_fingerprint(shapes, self.load, self.load_runs)
        return self._fingerprint
