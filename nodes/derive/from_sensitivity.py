"""A recipe from a limit on the measured error of each layer."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.derive import recipe_from_sensitivity
from ...quant.formats import FORMATS
from ...quant.planning import Recipe
from ...quant.sensitivity.artefact import Sensitivity
from ..inputs.sockets import CATEGORY, SensitivitySocket
from .derived import base_input, default_recipe, derived_outputs, derived_result


class RecipeFromSensitivity(io.ComfyNode):
    """The cheapest format of each layer within a limit on its measured error."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryRecipeFromSensitivity",
            display_name="Recipe From Sensitivity",
            category=CATEGORY,
            description=(
                "Gives each layer that a recipe quantizes the smallest format whose measured "
                "error is within a limit. For a size or an error of the whole model take Auto Mix."
            ),
            search_aliases=["nvfp4 recipe", "error threshold", "sensitive layers"],
            inputs=[
                SensitivitySocket.Input(
                    "sensitivity",
                    tooltip="From Measure Sensitivity, Probe Result or Load Sensitivity.",
                ),
                base_input(),
                io.Float.Input(
                    "max_error",
                    default=8.0,
                    min=0.1,
                    max=99.0,
                    step=0.5,
                    tooltip="In %: the largest error of a layer's output, inputs rounded too.",
                ),
                io.String.Input(
                    "formats",
                    default="",
                    placeholder="nvfp4, float8_e4m3fn",
                    tooltip="To choose from, separated by commas. Empty: all that were measured.",
                ),
                io.Combo.Input(
                    "otherwise",
                    options=list(FORMATS),
                    default="keep",
                    tooltip="The format where none keeps the limit, or the error is not known.",
                ),
            ],
            outputs=derived_outputs(),
        )

    @classmethod
    def execute(
        cls,
        sensitivity: Sensitivity,
        max_error: float,
        formats: str,
        otherwise: str,
        recipe: Recipe | None = None,
    ) -> io.NodeOutput:
        """Compare with the limit."""
        names = [name.strip() for name in formats.split(",") if name.strip()]
        return derived_result(
            recipe_from_sensitivity(
                sensitivity, recipe or default_recipe(), max_error / 100, names, otherwise
            )
        )
