"""Recipes from the formats of a quantized file."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.derive import DerivedRecipe, recipe_from_checkpoint
from ...quant.sources import open_source
from ..files import folders


def inputs() -> list[io.Input]:
    """Return the widgets of this source."""
    return [
        io.Combo.Input(
            "model_file",
            options=folders.quantized_files(),
            tooltip="A quantized checkpoint of your model, or of a finetune of it. Its weights are "
            "not used.",
        )
    ]


def derived(choice: dict[str, Any]) -> DerivedRecipe:
    """Return the recipe for the values of `inputs`, and notes."""
    path = folders.source_path(choice["model_file"])
    with open_source(path) as checkpoint:
        return recipe_from_checkpoint(checkpoint, path.stem)
