"""The node that loads a saved recipe."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...quant.planning import load_recipe
from ...quant.reports.mix import describe_recipe
from ..files.artefacts import RECIPES
from ..inputs.saved import saved_input
from ..inputs.sockets import CATEGORY, RecipeSocket


class LoadRecipe(io.ComfyNode):
    """Load a saved recipe."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryLoadRecipe",
            display_name="Load Recipe",
            category=CATEGORY,
            description=(
                "Loads a recipe that Save Recipe, Auto Mix, 'nvfp4 mix' or 'nvfp4 recipe' saved."
            ),
            search_aliases=["nvfp4 recipe", "load mix", "recipe file", "import recipe"],
            inputs=[
                saved_input(RECIPES),
            ],
            outputs=[
                RecipeSocket.Output(display_name="RECIPE"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None) -> bool | str:
        """Report a missing file before the queue starts."""
        return RECIPES.check_saved(name)

    @classmethod
    def fingerprint_inputs(cls, name: str) -> float:
        """Return when the file changed, so that a changed file is loaded again."""
        return RECIPES.modified(name)

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        """Return the recipe and its report."""
        recipe = load_recipe(RECIPES.path(name))
        text = describe_recipe(recipe)
        return io.NodeOutput(recipe, text, ui=ui.PreviewText(text))
