"""The node that adds rules to a recipe."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...quant.errors import RecipeError
from ...quant.formats import FORMATS
from ...quant.planning import Recipe, parse_rule_lines
from ...quant.reports.mix import describe_recipe
from ...quant.rounding import ROUNDINGS
from ..inputs.sockets import CATEGORY, RecipeSocket

_UNCHANGED = "as in the recipe"


class EditRecipe(io.ComfyNode):
    """Add rules to a recipe that win over its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryEditRecipe",
            display_name="Edit Recipe",
            category=CATEGORY,
            description="Adds rules to any recipe. The new rules win over the recipe's own.",
            search_aliases=["nvfp4 recipe", "extra rules", "change layers", "layer formats"],
            inputs=[
                RecipeSocket.Input("recipe", tooltip="The recipe to change."),
                io.String.Input(
                    "rules",
                    multiline=True,
                    default="",
                    placeholder="blocks.*.ffn.2 = bf16\n* @ first:3 = float8_e4m3fn",
                    tooltip="One 'pattern = format' per line. Patterns are globs over layer names. "
                    "'@ first:N' or '@ last:N' limits them to blocks. Formats: "
                    f"{', '.join(FORMATS)}.",
                ),
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
        )

    @classmethod
    def validate_inputs(cls, rules: str | None) -> bool | str:
        """Report an invalid rule before the queue starts."""
        try:
            parse_rule_lines(rules or "")
        except RecipeError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, recipe: Recipe, rules: str, rounding: str) -> io.NodeOutput:
        """Return the changed recipe and its report."""
        chosen = None if rounding == _UNCHANGED else rounding
        edited = recipe.with_rules(parse_rule_lines(rules)).with_numbers(chosen)
        text = describe_recipe(edited)
        return io.NodeOutput(edited, text, ui=ui.PreviewText(text))
