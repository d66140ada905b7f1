"""The input for the oldest ComfyUI that must load a checkpoint."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.hardware.comfyui import (
    FLOOR,
    TRIED_COMFYUI,
    parse_version,
    running_comfyui,
    version_text,
)
from ...quant.planning import Recipe

THIS = "this ComfyUI"


def comfyui_input() -> io.Input:
    """Return the choice of a version. The default is the recipe's, else the ComfyUI that runs."""
    return io.Combo.Input(
        "comfyui",
        options=[THIS, *TRIED_COMFYUI],
        default=THIS,
        optional=True,
        advanced=True,
        tooltip="The oldest ComfyUI that must load the checkpoint. Formats that it does not know "
        "are not chosen, and refused in rules: asym_w4a8_int8 and nvfp4_smooth need 0.33. Choose "
        "an older one than yours if you give the checkpoint to others.",
    )


def for_chosen_comfyui(recipe: Recipe, choice: str | None) -> Recipe:
    """Return a recipe for the chosen ComfyUI; one that names its own keeps it by default."""
    if choice and choice != THIS:
        return recipe.for_comfyui(choice)
    return recipe if recipe.comfyui else recipe.for_comfyui(_running())


def _running() -> str | None:
    """Return the ComfyUI that runs, without the number of the patch; None if it is not known."""
    try:
        version = parse_version(running_comfyui() or "")[:2]
    except ValueError:
        return None
    return version_text(max(version, FLOOR))
