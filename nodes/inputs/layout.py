"""The input that says whose layout NVFP4 weights without markers have."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.sources.quantized import LAYOUTS

_AUTO = "auto"


def layout_input() -> io.Input:
    """Return the choice. It comes last in its node, because workflows save widgets in order."""
    return io.Combo.Input(
        "layout",
        options=[_AUTO, *LAYOUTS],
        default=_AUTO,
        optional=True,
        advanced=True,
        tooltip="Only for NVFP4 files without markers that do not show who wrote them: comfyui for "
        "files of ComfyUI and of tools for it, modelopt for files of NVIDIA ModelOpt.",
    )


def chosen_layout(value: str | None) -> str:
    """Return the layout for ``open_source``; empty if the file has to show it."""
    return "" if value in (None, _AUTO) else str(value)
