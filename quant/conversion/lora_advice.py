"""How to use LoRAs with a quantized file."""

from __future__ import annotations

from collections.abc import Iterable

from ..formats import get_format

#: ComfyUI's node that adds a LoRA beside the layers, as users find it.
BYPASS_NODE = "Load LoRA (Bypass, Model Only)"


def lora_advice(formats: Iterable[str]) -> str:
    """Return the advice for a file with layers in these formats; empty if none is quantized.

    ComfyUI's other LoRA nodes decode each layer that a LoRA changes, add it, and quantize the sum
    again with scales of their own and stochastic rounding.
    """
    quantized = {name for name in formats if get_format(name).is_quantized}
    if not quantized:
        return ""
    if any(get_format(name).has_channel_scale for name in quantized):
        return (
            f"for a LoRA at run time use ComfyUI's {BYPASS_NODE}. Other nodes add it to weights "
            "that were divided by factors per channel (nvfp4_smooth), so the LoRA does something "
            "else than it was trained for. To bake a LoRA in, use Quantize Model to NVFP4"
        )
    loss = " (4 to 14% more weight error in NVFP4)" if "nvfp4" in quantized else ""
    return (
        f"for a LoRA at run time use ComfyUI's {BYPASS_NODE}, which leaves the stored weights as "
        f"they are; other nodes round the layers that a LoRA changes again{loss}. To bake a LoRA "
        "in, use Quantize Model to NVFP4"
    )
