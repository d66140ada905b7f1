"""Translate the tensor names of other tools to ComfyUI's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ..errors import SourceError
from .base import TensorSource
from .diffusers_names import FUSIONS
from .fused import FusedSource, Fusion
from .text_encoder_names import (
    is_qwen_of_llama_cpp,
    is_t5_of_llama_cpp,
    qwen_to_comfy,
    t5_to_comfy,
)
from .view import SourceView
from .wan_names import is_wan_of_diffusers, wan_to_comfy


@dataclass(frozen=True)
class Naming:
    """A naming convention of another tool: how to recognise it, and how to translate a name."""

    title: str
    is_used: Callable[[Iterable[str]], bool]
    to_comfy: Callable[[str], str]


NAMINGS = (
    Naming("WAN with the names of diffusers", is_wan_of_diffusers, wan_to_comfy),
    Naming("a T5 encoder with the names of llama.cpp", is_t5_of_llama_cpp, t5_to_comfy),
    Naming("a Qwen model with the names of llama.cpp", is_qwen_of_llama_cpp, qwen_to_comfy),
)


def find_naming(names: Iterable[str]) -> Naming | None:
    """Return the naming convention of tensor names, or None if no other convention is found."""
    found = set(names)
    return next((naming for naming in NAMINGS if naming.is_used(found)), None)


def find_fusion(names: Iterable[str]) -> Fusion | None:
    """Return the family with the names of diffusers whose tensors have to be put together."""
    found = set(names)
    return next((fusion for fusion in FUSIONS if fusion.is_used(found)), None)


def in_comfy_names(source: TensorSource, *, to_look: bool = False) -> TensorSource:
    """Return the source with ComfyUI's names; unchanged if no other convention is found.

    ``to_look``: a source that cannot be translated keeps its names instead of being refused.

    Raises:
        SourceError: tensors have no place in ComfyUI's model, or are missing.
    """
    fusion = find_fusion(source.tensors)
    if fusion is not None:
        try:
            return FusedSource(source, fusion)
        except SourceError as error:
            if not to_look:
                raise
            source.notes = (*source.notes, str(error))
            return source
    naming = find_naming(source.tensors)
    return RenamedSource(source, naming) if naming else source


class RenamedSource(SourceView):
    """A source with ComfyUI's names, in its own order.

    Raises:
        SourceError: two tensors would get one name.
    """

    def __init__(self, source: TensorSource, naming: Naming):
        super().__init__(source, f"the source is {naming.title}; ComfyUI's names are used instead")
        self.comfyui_reads = False
        if source.linear_layers is not None:
            self.linear_layers = frozenset(map(naming.to_comfy, source.linear_layers))
        self._original = {naming.to_comfy(name): name for name in source.tensors}
        if len(self._original) < len(source.tensors):
            kept = set(self._original.values())
            lost = next(name for name in source.tensors if name not in kept)
            raise SourceError(
                f"{source.description} is {naming.title}, but also has {naming.to_comfy(lost)}, so "
                "it may hold two models; start from a file with one model"
            )
        self._tensors = {
            name: replace(source.info(original), name=name)
            for name, original in self._original.items()
        }

    def _origin(self, name: str) -> tuple[TensorSource, str]:
        return self._source, self._original[name]
