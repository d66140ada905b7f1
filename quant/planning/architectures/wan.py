"""WAN 2.1 and 2.2, and the models that add something to it."""

from __future__ import annotations

from ..layers import Inventory
from .architecture import Architecture, describe_blocks
from .signs import NEWER

# What a variant has and no other WAN: a layer, its id, its title. The order is ComfyUI's.
_BY_LAYER = (
    ("vace_patch_embedding", "wan-vace", "WAN VACE"),
    ("control_adapter.conv", "wan-camera", "WAN camera control"),
    ("casual_audio_encoder.encoder.final_linear", "wan-s2v", "WAN S2V"),
    ("audio_proj.audio_proj_glob_1.layer", "wan-humo", "WAN HuMo"),
    ("face_adapter.fuser_blocks.0.k_norm", "wan-animate", "WAN Animate"),
    ("patch_embedding_mask", "wan-scail", "WAN SCAIL 2"),
    ("patch_embedding_pose", "wan-scail", "WAN SCAIL"),
    ("patch_embedding_global", "wan-dancer", "WanDancer"),
)
_BY_HEADER = {
    "animate2": ("wan-animate2", "WAN Animate 2", NEWER),
    "flow_rvs": ("wan-flowrvs", "WAN FlowRVS", ""),
}
_BY_CHANNELS = {16: ("wan-t2v", "WAN T2V"), 36: ("wan-i2v", "WAN I2V")}
_TI2V_CHANNELS = 48
_PATCH = 4


def wan(inventory: Inventory) -> Architecture | None:
    """Recognise WAN with ComfyUI's names."""
    patch = inventory.shape_of("patch_embedding")
    modulation = inventory.shape_of("head.modulation")
    if not patch or not modulation or not inventory.shape_of("blocks.0.self_attn.q"):
        return None
    channels, width = patch[1], modulation[-1]
    facts = f"{channels} input channels, width {width}"
    if blocks := describe_blocks(inventory, "blocks"):
        facts += f", {blocks}"
    identity, title, since = _variant(inventory, channels)
    return Architecture(identity, title, facts, since=since)


def _variant(inventory: Inventory, channels: int) -> tuple[str, str, str]:
    """Return id, title and the first ComfyUI of a variant."""
    named = _BY_HEADER.get(str(inventory.transformer.get("model_type")))
    if named:
        return named
    for layer, identity, title in _BY_LAYER:
        if layer in inventory.layers:
            return identity, title, ""
    if inventory.transformer.get("causal_ar"):
        return "wan-causal-ar", "WAN T2V, autoregressive", ""
    head = inventory.shape_of("head.head")
    if channels == _TI2V_CHANNELS and head and head[0] == _PATCH * _TI2V_CHANNELS:
        return "wan-ti2v", "WAN 2.2 TI2V", ""
    if "ref_conv" in inventory.layers or channels == _TI2V_CHANNELS:
        return "wan-fun-control", "WAN Fun Control", ""
    return *_BY_CHANNELS.get(channels, ("wan", "WAN")), ""


def wan_diffusers(inventory: Inventory) -> Architecture | None:
    """Recognise WAN with diffusers' names."""
    signs = ("condition_embedder.time_proj", "blocks.0.attn1.to_q")
    if not all(inventory.shape_of(name) for name in signs):
        return None
    return Architecture(
        "wan-diffusers",
        "WAN with diffusers names",
        problem="ComfyUI does not load WAN with diffusers names; quantize the original file, "
        "because the pack translates its names when it opens the file",
    )
