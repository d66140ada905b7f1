"""A recipe resolved against a model: a dry run."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.planning import Recipe, make_plan, take_inventory
from ...quant.reports.plan import describe_plan
from ..bridge.applied_loras import loras_before
from ..bridge.model_source import ModelSource
from ..inputs.sockets import CATEGORY, PlanSocket, RecipeSocket


class PlanLayers(io.ComfyNode):
    """Resolve a recipe against a model: a dry run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryPlanLayers",
            display_name="Plan Layers",
            category=CATEGORY,
            description=(
                "Shows which layer would get which format and why, and the size before and "
                "after. Nothing is converted."
            ),
            search_aliases=["nvfp4 plan", "dry run", "estimate size"],
            inputs=[
                io.Model.Input("model", tooltip="The model to quantize, LoRAs applied or not."),
                RecipeSocket.Input("recipe", tooltip="From Select NVFP4 Preset or Load Recipe."),
                io.Boolean.Input(
                    "any_architecture",
                    default=False,
                    advanced=True,
                    tooltip="Use the preset even on a model it was not written for.",
                ),
            ],
            outputs=[
                PlanSocket.Output(display_name="PLAN"),
                io.String.Output(display_name="table"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Any, recipe: Recipe, any_architecture: bool) -> io.NodeOutput:
        """Plan."""
        with ModelSource(model, loras_before(cls.hidden)) as source:
            plan = make_plan(recipe, take_inventory(source), any_architecture=any_architecture)
            text = describe_plan(plan, (*source.notes, *(f"LoRA {lo}" for lo in source.loras)))
        return io.NodeOutput(plan, text, ui=ui.PreviewText(text))
