"""The node that makes a recipe from a limit on the measured error of each layer."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.derive import recipe_from_sensitivity
from ...quant.formats import FORMATS
from ...quant.planning import Recipe
from ...quant.sensitivity.artefact import Sensitivity
from ..inputs.sockets import CATEGORY, SensitivitySocket
from .derived import base_input, default_recipe, derived_outputs, derived_result


class RecipeFromSensitivity(io.ComfyNode):
    """Give each layer the smallest format within a limit on its measured error."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryRecipeFromSensitivity",
            display_name="Recipe From Sensitivity",
            category=CATEGORY,
            description=(
                "Gives each layer that a recipe quantizes the smallest format whose measured "
                "error stays within a limit. For a file size, or an error of the whole model, use "
                "Auto Mix."
            ),
            search_aliases=[
                "nvfp4 recipe",
                "error threshold",
                "sensitive layers",
                "mixed precision",
            ],
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
                    tooltip="The largest error of a layer's output, in %, with rounded inputs.",
                ),
                io.String.Input(
                    "formats",
                    default="",
                    placeholder="nvfp4, float8_e4m3fn",
                    tooltip="The formats to choose from, separated by commas. Leave it empty for "
                    "all measured formats.",
                ),
                io.Combo.Input(
                    "otherwise",
                    options=list(FORMATS),
                    default="keep",
                    tooltip="The format for layers where no format stays within the limit, or "
                    "where the error is unknown.",
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
        """Return the changed recipe and its report."""
        names = [name.strip() for name in formats.split(",") if name.strip()]
        return derived_result(
            recipe_from_sensitivity(
                sensitivity, recipe or default_recipe(), max_error / 100, names, otherwise
            )
        )
