"""The input that chooses several formats."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.derive import MIX_FORMATS
from ...quant.formats import FORMATS

_TYPE = "NVFP4_FORMATS"


@io.comfytype(io_type=_TYPE)
class FormatChoice:
    """Names of formats, separated by commas. ``web/comfy/format_choice.js`` draws the widget.

    ComfyUI's own list of several choices is not drawn by all of its renderers, and begins empty.
    """

    Type = str

    class Input(io.WidgetInput):
        """The widget, with a switch for each format."""

        def __init__(self, id: str, tooltip: str) -> None:
            super().__init__(
                id,
                optional=True,
                tooltip=tooltip,
                default=", ".join(MIX_FORMATS),
                extra_dict={"formats": _notes()},
            )


def chosen_formats(value: str | list[str] | None) -> list[str]:
    """Return the names in the value of the widget; the usual formats for None.

    Prompts of other programs may have a list instead.
    """
    if value is None:
        return list(MIX_FORMATS)
    names = value.split(",") if isinstance(value, str) else value
    return [name.strip() for name in names if name.strip()]


def _notes() -> dict[str, str]:
    """Return what to say about each format that can be chosen, by name."""
    return {
        name: _NOTES.get(name, f"Stored as {name}, not quantized.")
        for name in FORMATS
        if name != "fp32"
    }


_NOTES = {
    "nvfp4": "4.5 bits per weight, 4-bit activations.",
    "nvfp4_w4a16": "4.5 bits per weight, 16-bit activations. As small as nvfp4, more precise and "
    "slower, so it replaces every nvfp4.",
    "float8_e4m3fn": "8 bits per weight, 8-bit activations.",
    "keep": "Layers may stay as they are in the source.",
    "int8_tensorwise": "8 bits per weight, 8-bit activations, one scale per layer.",
    "int8_rowwise": "8 bits per weight, 8-bit activations, for Turing and newer.",
    "int8_convrot": "8 bits per weight, 8-bit activations, with a rotation that spreads outliers. "
    "The most precise 8-bit format, for Turing and newer.",
    "convrot_w4a4": "4 bits per weight, 4-bit activations on Turing, Ampere and Ada.",
    "convrot_w4a8": "4 bits per weight, 8-bit activations. As small as convrot_w4a4, more precise "
    "and slower.",
    "mxfp8": "8.25 bits per weight, 8-bit activations, for Blackwell.",
    "float8_e4m3fn_w8a16": "8 bits per weight, 16-bit activations. As small as float8_e4m3fn, more "
    "precise and slower.",
    "asym_w4a8_int8": "4.5 bits per weight, 8-bit activations, for Ampere and newer. As small as "
    "nvfp4, more precise, and slower than it on Blackwell. Needs ComfyUI 0.33.",
    "nvfp4_smooth": "nvfp4 whose input is multiplied by a factor per channel where that helps. For "
    "layers with loud channels, with a calibration that has Hessians. LoRAs only in bypass mode. "
    "Needs ComfyUI 0.33.",
    "float8_e5m2": "8 bits per weight, 16-bit activations. Less precise than float8_e4m3fn.",
}
