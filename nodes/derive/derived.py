"""The inputs, outputs and result that nodes with derived recipes share."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...quant.derive import DerivedRecipe
from ...quant.planning import Recipe, get_preset
from ...quant.reports.mix import describe_recipe
from ..inputs.sockets import RecipeSocket


def base_input() -> io.Input:
    """Return the input for the recipe to change."""
    return RecipeSocket.Input(
        "recipe",
        optional=True,
        tooltip="The recipe to change. It sets which layers to quantize, the rounding and the "
        "input scales. Without it, the preset 'smart' is used.",
    )


def default_recipe() -> Recipe:
    """Return the recipe to change if none is connected."""
    return get_preset("smart").build()


def derived_outputs() -> list[io.Output]:
    """Return the outputs of every node that derives a recipe."""
    return [
        RecipeSocket.Output(display_name="RECIPE"),
        io.String.Output(display_name="report"),
    ]


def derived_result(derived: DerivedRecipe) -> io.NodeOutput:
    """Return a derived recipe and its report."""
    text = "\n".join([*derived.notes, describe_recipe(derived.recipe)])
    return io.NodeOutput(derived.recipe, text, ui=ui.PreviewText(text))
