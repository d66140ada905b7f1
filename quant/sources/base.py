"""Where tensors come from: names, shapes and dtypes without loading, one tensor at a time."""

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
    """How a weight is stored that is quantized in its source.

    ``label`` is for people, ``nbytes`` what all its parts take in the file. ``format`` is the
    name of the format of ours it can be kept in as it is, empty where there is none.
    """

    label: str
    nbytes: int
    format: str = ""


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor before it is loaded.

    ``dtype`` is the one it is stored in; of weights that are quantized in the source (``stored``
    says how) the one they are kept in when they are not quantized again.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    stored: StoredAs | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes, as ``dtype``."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def file_bytes(self) -> int:
        """Size in the source, in bytes."""
        return self.stored.nbytes if self.stored else self.nbytes


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
    #: What the file holds beside the model (a text encoder, a VAE), as it is stored there.
    rest: TensorSource | None = None
    #: Whether ComfyUI's own loader reads the file as this source does.
    comfyui_reads: bool = True
    #: LoRAs that are merged into the weights, in the order they were applied.
    loras: tuple[AppliedLora, ...] = ()
    _fingerprint: ModelFingerprint | None = None

    @property
    @abstractmethod
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the source's own order."""

    @abstractmethod
    def load(self, name: str) -> torch.Tensor:
        """Return one tensor on CPU, in its stored dtype or a wider one.

        Merged and decoded weights come in float32 whatever ``info(name).dtype`` says: rounded to
        16 bits, a small LoRA would be lost in part before it is quantized. So do 8-bit floats,
        which torch does not compute with. Who stores a tensor as it is casts it to
        ``info(name).dtype``.

        Raises:
            SourceError: no such tensor, or the file cannot be read.
        """

    def stored_weight(self, name: str) -> StoredWeight | None:
        """Return how a weight is stored that is quantized in the source, and nowhere changed."""
        return None

    def stored_tensors(self, name: str, fmt: WeightFormat) -> Mapping[str, torch.Tensor] | None:
        """Read what a weight is stored as, by suffix, if that is what ``fmt`` would store."""
        stored = self.stored_weight(name) if fmt.is_quantized else None
        if stored is None or stored.tensors is None or not stored.fits(fmt):
            return None
        return stored.tensors()

    def load_runs(self, name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        """Return ``length`` consecutive elements from each flat position, ``[starts, length]``.

        Raises:
            SourceError: as `load`.
        """
        values = self.load(name).flatten()
        return torch.stack([values[start : start + length] for start in starts])

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
        """Bytes of all tensors in the source."""
        return sum(info.file_bytes for info in self.tensors.values())

    def fingerprint(self) -> ModelFingerprint:
        """Fingerprint the model; reads a little of a few tensors, once."""
        if self._fingerprint is None:
            shapes = {name: info.shape for name, info in self.tensors.items()}
            self._fingerprint = compute_fingerprint(shapes, self.load, self.load_runs)
        return self._fingerprint
