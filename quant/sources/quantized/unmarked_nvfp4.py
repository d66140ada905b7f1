"""NVFP4 with ``weight_scale`` and ``weight_scale_2`` and without markers: ComfyUI's or ModelOpt's.

The layout is decided once for the whole file, and never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from ...errors import Remedy, SourceError
from ..base import TensorSource
from ..stored_layers import StoredLayer, layer_tensors
from ..stored_weight import StoredWeight
from .comfyui import marked_weight
from .convention import Found
from .layout_evidence import (
    COMFYUI,
    LAYOUTS,
    MODELOPT,
    Evidence,
    other_evidence,
    possible_layouts,
    shape_evidence,
)
from .layout_statistics import layout_statistics
from .modelopt import modelopt_weight
from .parts import layers_with


@dataclass(frozen=True)
class UnmarkedNVFP4:
    """NVFP4 of ComfyUI, saved again without its markers, and NVFP4 as ModelOpt exports it.

    ``layout`` is what the user says it is (see `LAYOUTS`); empty: the file must show it.
    """

    layout: str = ""
    label = "ModelOpt or ComfyUI without markers"
    reference = (
        "NVIDIA/Model-Optimizer: modelopt/torch/quantization/qtensor/nvfp4_tensor.py; "
        "Comfy-Org/comfy-kitchen: comfy_kitchen/tensor/nvfp4.py"
    )

    def find(self, source: TensorSource) -> Found:
        """Find uint8 weights with ``weight_scale`` and ``weight_scale_2`` and no marker."""
        layers = [
            layer
            for layer in layers_with(source, "weight_scale_2", "weight_scale", "weight")
            if source.info(f"{layer}.weight").dtype == torch.uint8
        ]
        if not layers:
            return {}
        try:
            layout = decide_layout(source, layers, self.layout)
        except SourceError as error:
            return {f"{layer}.weight": partial(_refuse, error) for layer in layers}
        describe = modelopt_weight if layout == MODELOPT else _comfyui_weight
        return {f"{layer}.weight": partial(describe, source, layer) for layer in layers}


def decide_layout(source: TensorSource, layers: list[str], given: str = "") -> str:
    """Return the layout of all these layers of one file.

    Raises:
        SourceError: nothing shows it, signs contradict each other, or ``given`` is impossible.
    """
    if given:
        return _require_possible(source, layers, given)
    signs = shape_evidence(source, layers)
    if not signs:
        signs = other_evidence(source)
        undecided = [layer for layer in layers if possible_layouts(source, layer)]
        by_scales = layout_statistics(source, undecided).layout if undecided else MODELOPT
        if by_scales:  # of a damaged layer, ModelOpt's reader names what is wrong
            signs.append(Evidence(by_scales, "how its block scales vary from row to row"))
    shown = {sign.layout: sign.reason for sign in reversed(signs)}
    if len(shown) == 1:
        return next(iter(shown))
    raise _undecided(source, shown)


def _require_possible(source: TensorSource, layers: list[str], given: str) -> str:
    for layer in layers:
        possible = possible_layouts(source, layer)
        if possible and given not in possible:
            other = possible[0]
            raise SourceError(
                f"{source.description}: --layout {given} (in the nodes: layout) cannot be right: "
                f"the shapes of {layer} are {LAYOUTS[other]}; leave the layout out",
                remedy=Remedy("Let the file show its layout", "layout", "auto"),
            )
    return given


def _undecided(source: TensorSource, shown: dict[str, str]) -> SourceError:
    if shown:
        signs = " but ".join(f"{shown[la]} shows {LAYOUTS[la]} layout" for la in sorted(shown))
        why = f"and what it shows is contradictory: {signs}"
    else:
        why = (
            "and both ComfyUI's layout and ModelOpt's are possible: all layers have sizes at which "
            "these look alike, and the block scales do not tell them apart"
        )
    return SourceError(
        f"{source.description}: its NVFP4 weights have no markers, {why}; read in the wrong way, "
        f"all weights would be noise. Give --layout {COMFYUI} if ComfyUI or a tool for ComfyUI "
        f"wrote it, or --layout {MODELOPT} if ModelOpt did (in the nodes: layout)"
    )


def _refuse(error: SourceError) -> StoredWeight:
    raise error


def _comfyui_weight(source: TensorSource, layer: str) -> StoredWeight:
    stored = StoredLayer(layer, layer_tensors(source, layer), {"format": "nvfp4"})
    return marked_weight(source, stored, is_marked=False)
