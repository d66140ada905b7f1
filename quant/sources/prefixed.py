"""The diffusion part of a source whose names carry a prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from .base import TensorInfo, TensorSource

# Longest first: "model." is also a prefix of "model.diffusion_model.".
PREFIXES = ("model.diffusion_model.", "model.", "net.")
# Language models call all of their layers so, and ComfyUI wants them to.
_NAMED_SO = ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight")


class PrefixedSource(TensorSource):
    """A source seen without a name prefix; tensors without the prefix are left out."""

    def __init__(self, source: TensorSource, prefix: str):
        self._source = source
        self.prefix = self._prefix = prefix
        self.description = source.description
        self.paths = source.paths
        self.metadata = source.metadata
        self._tensors = {
            name[len(prefix) :]: replace(info, name=name[len(prefix) :])
            for name, info in source.tensors.items()
            if name.startswith(prefix)
        }
        left_out = sorted(set(source.tensors) - {prefix + name for name in self._tensors})
        notes = [*source.notes, f"names are read without their prefix {prefix!r}"]
        if left_out:
            parts = sorted({name.split(".")[0] for name in left_out})
            notes.append(
                f"{len(left_out)} tensors outside the diffusion model are not taken "
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
    prefixes count only where every name has them, and not in a language model.
    """
    checkpoint, *bare = PREFIXES
    if any(name.startswith(checkpoint) for name in names):
        return checkpoint
    if any(name in names for name in _NAMED_SO):
        return ""
    for prefix in bare:
        if names and all(name.startswith(prefix) for name in names):
            return prefix
    return ""
