"""The node that applies a recipe to a model and shows the plan."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.planning import Recipe, make_plan, take_inventory
from ...quant.reports.plan import describe_plan
from ..bridge.applied_loras import loras_before
from ..bridge.model_source import ModelSource
from ..inputs.any_architecture import any_architecture_input
from ..inputs.sockets import CATEGORY, PlanSocket, RecipeSocket


class PlanLayers(io.ComfyNode):
    """Apply a recipe to a model and show the plan."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryPlanLayers",
            display_name="Plan Layers",
            category=CATEGORY,
            description=(
                "Shows which format each layer would get and why, and the file size before and "
                "after. Nothing is converted."
            ),
            search_aliases=[
                "nvfp4 plan",
                "quantize plan",
                "dry run",
                "estimate size",
                "fp8",
                "4-bit",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model to quantize, with or without LoRAs."),
                RecipeSocket.Input(
                    "recipe",
                    tooltip="From Select NVFP4 Preset or any other node that outputs a recipe.",
                ),
                any_architecture_input(),
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
        """Return the plan and its table."""
        with ModelSource(model, loras_before(cls.hidden)) as source:
            plan = make_plan(recipe, take_inventory(source), any_architecture=any_architecture)
            text = describe_plan(plan, (*source.notes, *(f"LoRA {lo}" for lo in source.loras)))
        return io.NodeOutput(plan, text, ui=ui.PreviewText(text))
