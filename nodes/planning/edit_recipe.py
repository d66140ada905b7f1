"""Rules before those of any recipe."""

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
    """Rules before those of any recipe."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryEditRecipe",
            display_name="Edit Recipe",
            category=CATEGORY,
            description="Adds rules to any recipe, wherever it came from. They win over its own.",
            search_aliases=["nvfp4 recipe", "extra rules", "change layers"],
            inputs=[
                RecipeSocket.Input("recipe", tooltip="The recipe to change."),
                io.String.Input(
                    "rules",
                    multiline=True,
                    default="",
                    placeholder="blocks.*.ffn.2 = bf16\n* @ first:3 = float8_e4m3fn",
                    tooltip="One 'pattern = format' a line. Patterns are globs over layer names, "
                    f"'@ first:N' limits them to blocks. Formats: {', '.join(FORMATS)}.",
                ),
                io.Combo.Input(
                    "rounding",
                    options=[_UNCHANGED, *ROUNDINGS],
                    default=_UNCHANGED,
                    tooltip="How the scales of the weights are chosen.",
                ),
            ],
            outputs=[
                RecipeSocket.Output(display_name="RECIPE"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(cls, rules: str | None) -> bool | str:
        """Say before the queue starts when a rule is wrong."""
        try:
            parse_rule_lines(rules or "")
        except RecipeError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, recipe: Recipe, rules: str, rounding: str) -> io.NodeOutput:
        """Edit."""
        chosen = None if rounding == _UNCHANGED else rounding
        edited = recipe.with_rules(parse_rule_lines(rules)).with_numbers(chosen)
        text = describe_recipe(edited)
        return io.NodeOutput(edited, text, ui=ui.PreviewText(text))
