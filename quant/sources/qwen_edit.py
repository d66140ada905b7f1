"""The marker by which ComfyUI knows Qwen-Image-Edit 2511, added where a source lacks it.

The weights of 2511 have the names and shapes of the other Qwen-Image models; only how reference
images are placed in time differs. diffusers says so in ``config.json``, by ``zero_cond_t``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from .base import TensorInfo, TensorSource

MARKER_2511 = "__index_timestep_zero__"
_QWEN = ("transformer_blocks.0.img_mod.1.weight", "txt_norm.weight")


class MarkedSource(TensorSource):
    """A source with the empty marker tensor of Qwen-Image-Edit 2511 before its own tensors."""

    def __init__(self, source: TensorSource, reason: str):
        self._source = source
        self.description = source.description
        self.paths = source.paths
        self.metadata = source.metadata
        self.prefix = source.prefix
        self.loras = source.loras
        self.notes = (*source.notes, f"the marker of Qwen-Image-Edit 2511 is added: {reason}")
        marker = TensorInfo(MARKER_2511, (0,), torch.float32)
        self._tensors = {MARKER_2511: marker, **source.tensors}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The marker and all tensors of the source."""
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        """Load a tensor, or make the marker."""
        return torch.empty(0) if name == MARKER_2511 else self._source.load(name)

    def load_runs(self, name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        """Load parts of a tensor."""
        return self._source.load_runs(name, starts, length)

    def close(self) -> None:
        """Close the underlying source."""
        self._source.close()


def with_2511_marker(source: TensorSource, *, asked_for: bool = False) -> TensorSource:
    """Return a Qwen-Image source with the marker of Edit 2511 if it is that model.

    It is, if ``asked_for``, or if the ``config.json`` beside its files says so. Any other source
    is returned as it is.
    """
    if MARKER_2511 in source.tensors or not all(name in source.tensors for name in _QWEN):
        return source
    if asked_for:
        return MarkedSource(source, "the recipe is for that model")
    folders = {path if path.is_dir() else path.parent for path in source.paths}
    if any(_config(folder).get("zero_cond_t") is True for folder in folders):
        return MarkedSource(source, "its config.json has zero_cond_t")
    return source


def _config(folder: Path) -> Mapping[str, object]:
    """Return the settings diffusers keeps beside the weights; none where they are no JSON."""
    try:
        data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
