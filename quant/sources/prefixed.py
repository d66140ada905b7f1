"""The diffusion part of a source whose names carry a prefix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .base import TensorInfo, TensorSource
from .remaining import RemainingTensors
from .view import SourceView

# Longest first: "model." is also a prefix of "model.diffusion_model.".
PREFIXES = ("model.diffusion_model.", "model.", "net.")
# Language models call all of their layers so, and ComfyUI wants them to.
_NAMED_SO = ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight")


class PrefixedSource(SourceView):
    """A source seen without a name prefix; tensors without the prefix are its ``rest``."""

    def __init__(self, source: TensorSource, prefix: str):
        super().__init__(source, f"names are read without their prefix {prefix!r}")
        self.prefix = prefix
        self._tensors = {
            name[len(prefix) :]: replace(info, name=name[len(prefix) :])
            for name, info in source.tensors.items()
            if name.startswith(prefix)
        }
        rest = RemainingTensors(source, {prefix + name for name in self._tensors})
        if rest.tensors:
            self.rest = rest
            parts = sorted({name.split(".")[0] for name in rest.tensors})
            self.notes += (
                f"{len(rest.tensors)} tensors are outside of the diffusion model "
                f"({', '.join(parts[:6])})",
            )

    def _origin(self, name: str) -> tuple[TensorSource, str]:
        return self._source, self.prefix + name


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
