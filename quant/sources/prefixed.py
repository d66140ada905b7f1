"""The diffusion model of a source whose names have a prefix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .base import TensorInfo, TensorSource
from .remaining import RemainingTensors
from .view import SourceView

# Longest first, because "model.diffusion_model." also starts with "model.".
PREFIXES = ("model.diffusion_model.", "model.", "net.")
# Names of language models, in which ComfyUI expects the prefix.
_NAMED_SO = ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight")


class PrefixedSource(SourceView):
    """A source without the prefix of its names. Tensors without the prefix are its ``rest``."""

    def __init__(self, source: TensorSource, prefix: str):
        super().__init__(source, f"layer names are used without their prefix {prefix!r}")
        self.prefix = prefix
        if source.linear_layers is not None:
            self.linear_layers = frozenset(n.removeprefix(prefix) for n in source.linear_layers)
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
                f"{len(rest.tensors)} tensors are not part of the diffusion model "
                f"({', '.join(parts[:6])})",
            )

    def _origin(self, name: str) -> tuple[TensorSource, str]:
        return self._source, self.prefix + name


def find_prefix(names: Mapping[str, TensorInfo]) -> str:
    """Return the prefix of the diffusion model's names, or an empty string.

    ``model.diffusion_model.`` marks the diffusion model in a file that also holds a text encoder or
    a VAE. The shorter prefixes count only if every name has them, and not in a language model.
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
