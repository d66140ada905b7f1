"""Add the marker by which ComfyUI recognises Qwen-Image-Edit 2511.

The weights of 2511 have the same names and shapes as those of the other Qwen-Image models. Only the
timestep of reference images differs. In diffusers, ``zero_cond_t`` in ``config.json`` marks it.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from ..files.json_file import read_json_object
from .base import TensorSource
from .state_dict import StateDictSource
from .view import SourceView

MARKER_2511 = "__index_timestep_zero__"
#: The id of the architecture (see ``planning.architectures``) that the marker stands for.
ARCHITECTURE_2511 = "qwen-image-edit-2511"
_QWEN = ("transformer_blocks.0.img_mod.1.weight", "txt_norm.weight")


class MarkedSource(SourceView):
    """A source with the empty marker tensor of Qwen-Image-Edit 2511 before its own tensors."""

    def __init__(self, source: TensorSource, reason: str):
        super().__init__(source, f"the marker of Qwen-Image-Edit 2511 is added: {reason}")
        self.comfyui_reads = False
        self._marker = StateDictSource({MARKER_2511: torch.empty(0)})
        self._tensors = {**self._marker.tensors, **source.tensors}

    def _origin(self, name: str) -> tuple[TensorSource, str]:
        return (self._marker if name == MARKER_2511 else self._source), name


def with_2511_marker(source: TensorSource, meant_for: Collection[str] = ()) -> TensorSource:
    """Return a Qwen-Image source with the marker of Edit 2511, if it is that model.

    It is that model if the recipe is for that architecture and no other, or if the
    ``config.json`` beside its files says so. Any other source is returned unchanged.
    """
    if MARKER_2511 in source.tensors or not all(name in source.tensors for name in _QWEN):
        return source
    if set(meant_for) == {ARCHITECTURE_2511}:
        return MarkedSource(source, "the recipe is for that model")
    folders = {path if path.is_dir() else path.parent for path in source.paths}
    if any(
        read_json_object(folder / "config.json").get("zero_cond_t") is True for folder in folders
    ):
        return MarkedSource(source, "its config.json has zero_cond_t")
    return source


def marked_architectures(checkpoint: TensorSource) -> tuple[str, ...]:
    """Return what the source of a checkpoint was meant for: Edit 2511 where the marker is."""
    return (ARCHITECTURE_2511,) if MARKER_2511 in checkpoint.tensors else ()
