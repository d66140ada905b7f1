"""The diffusion part of a source whose names carry a prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from .base import TensorInfo, TensorSource
from .remaining import RemainingTensors
from .stored_weight import StoredWeight

# Longest first: "model." is also a prefix of "model.diffusion_model.".
PREFIXES = ("model.diffusion_model.", "model.", "net.")


class PrefixedSource(TensorSource):
    """A source seen without a name prefix; tensors without the prefix are left out."""

    def __init__(self, source: TensorSource, prefix: str):
        self._source = source
        self.prefix = self._prefix = prefix
        self.description = source.description
        self.paths = source.paths
        self.metadata = source.metadata
        self.comfyui_reads = source.comfyui_reads
        self._tensors = {
            name[len(prefix) :]: replace(info, name=name[len(prefix) :])
            for name, info in source.tensors.items()
            if name.startswith(prefix)
        }
        rest = RemainingTensors(source, {n for n in source.tensors if n.startswith(prefix)})
        notes = [*source.notes, f"names are read without their prefix {prefix!r}"]
        if rest.tensors:
            self.rest = rest
            parts = sorted({name.split(".")[0] for name in rest.tensors})
            notes.append(
                f"{len(rest.tensors)} tensors outside the diffusion model are no part of it "
                f"({', '.join(parts[:6])})"
            )
        self.notes = tuple(notes)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The prefixed tensors, by their name without the prefix."""
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        """Load by the name without prefix."""
        self.info(name)
        return self._source.load(self._prefix + name)

    def stored_weight(self, name: str) -> StoredWeight | None:
        """Return how a weight is stored, by its name without prefix."""
        return self._source.stored_weight(self._prefix + name)

    def load_runs(self, name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        """Load parts of a tensor by its name without prefix."""
        self.info(name)
        return self._source.load_runs(self._prefix + name, starts, length)

    def close(self) -> None:
        """Close the underlying source."""
        self._source.close()


def find_prefix(names: Mapping[str, TensorInfo]) -> str:
    """Return the prefix the diffusion model's names carry, or an empty string.

    ``model.diffusion_model.`` marks the model even beside a text encoder and a VAE; the shorter
    prefixes count only where every name has them.
    """
    checkpoint, *bare = PREFIXES
    if any(name.startswith(checkpoint) for name in names):
        return checkpoint
    for prefix in bare:
        if names and all(name.startswith(prefix) for name in names):
            return prefix
    return ""
