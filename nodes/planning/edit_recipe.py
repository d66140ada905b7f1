"""The node that adds rules to a recipe."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.errors import RecipeError
from ...quant.planning import Recipe, parse_rule_lines
from ...quant.reports.mix import describe_recipe
from ...quant.rounding import ROUNDINGS
from ..foundry_node import FoundryNode
from ..inputs.rules import rules_input
from ..inputs.sockets import RECIPES, RecipeSocket
from ..reports.errors import refused
from ..reports.shown import shown_text

_UNCHANGED = "as in the recipe"


class EditRecipe(FoundryNode):
    """Add rules to a recipe that win over its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryEditRecipe",
            display_name="Edit Recipe",
            category=RECIPES,
            description="Adds rules to any recipe. The new rules win over the recipe's own.",
            search_aliases=["nvfp4 recipe", "extra rules", "change layers", "layer formats", "fp8"],
            inputs=[
                RecipeSocket.Input("recipe", tooltip="The recipe to change."),
                rules_input("rules", "These rules win over the recipe's own."),
                io.Combo.Input(
                    "rounding",
                    options=[_UNCHANGED, *ROUNDINGS],
                    default=_UNCHANGED,
                    tooltip="How to round the weights.",
                ),
            ],
            outputs=[
                RecipeSocket.Output(display_name="RECIPE"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, rules: str | None) -> bool | str:
        """Report an invalid rule before the queue starts."""
        try:
            parse_rule_lines(rules or "")
        except RecipeError as error:
            return refused(str(error))
        return True

    @classmethod
    def execute(cls, recipe: Recipe, rules: str, rounding: str) -> io.NodeOutput:
        """Return the changed recipe and its report."""
        chosen = None if rounding == _UNCHANGED else rounding
        edited = recipe.with_rules(parse_rule_lines(rules)).with_numbers(chosen)
        text = describe_recipe(edited)
        return io.NodeOutput(edited, text, ui=shown_text(f"Recipe {edited.name}", text))
