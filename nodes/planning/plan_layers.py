"""The node that applies a recipe to a model and shows the plan."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.errors import RecipeError
from ...quant.planning import Recipe, make_plan, parse_rule_lines, take_inventory
from ...quant.reports.view import plan_view
from ..bridge.applied_loras import loras_before
from ..bridge.model_or_clip import opened
from ..foundry_node import FoundryNode
from ..inputs.any_architecture import any_architecture_input
from ..inputs.oldest_comfyui import THIS, comfyui_input, for_chosen_comfyui
from ..inputs.rules import rules_input
from ..inputs.sockets import START, PlanSocket, RecipeSocket
from ..reports.errors import refused
from ..reports.shown import shown


class PlanLayers(FoundryNode):
    """Apply a recipe to a model or a text encoder and show the plan."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryPlanLayers",
            display_name="Plan Layers",
            category=START,
            description=(
                "Shows which format each layer would get and why, and the file size before and "
                "after. Select layers on the map to give them another format. Nothing is converted."
            ),
            search_aliases=[
                "nvfp4 plan",
                "quantize plan",
                "dry run",
                "estimate size",
                "layer map",
                "fp8",
                "4-bit",
                "quantize text encoder",
                "t5 nvfp4",
            ],
            inputs=[
                io.MultiType.Input(
                    "model",
                    [io.Model, io.Clip],
                    tooltip="The MODEL to quantize, with or without LoRAs, or the CLIP whose text "
                    "encoder to quantize.",
                ),
                RecipeSocket.Input(
                    "recipe",
                    tooltip="From Select NVFP4 Preset or any other node that outputs a recipe.",
                ),
                any_architecture_input(),
                rules_input("rules", "These rules win over the recipe.", optional=True),
                io.String.Input(
                    "encoder",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Which encoder to use if a CLIP holds several: t5xxl, llama, ... Leave "
                    "it empty for the largest.",
                ),
                comfyui_input(),
            ],
            outputs=[
                PlanSocket.Output(display_name="PLAN"),
                io.String.Output(display_name="table"),
                RecipeSocket.Output(display_name="RECIPE"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, rules: str | None = None) -> bool | str:
        """Report an invalid rule before the queue starts."""
        try:
            parse_rule_lines(rules or "")
        except RecipeError as error:
            return refused(str(error))
        return True

    @classmethod
    def execute(
        cls,
        model: Any,
        recipe: Recipe,
        any_architecture: bool,
        rules: str = "",
        encoder: str = "",
        comfyui: str = THIS,
    ) -> io.NodeOutput:
        """Return the plan, its table and its recipe."""
        edited = for_chosen_comfyui(recipe, comfyui).with_rules(parse_rule_lines(rules))
        with opened(model, loras_before(cls.hidden), encoder=encoder.strip()) as source:
            inventory = take_inventory(source)
            plan = make_plan(edited, inventory, any_architecture=any_architecture)
            notes = (*source.notes, *(f"LoRA {lora}" for lora in source.loras))
        view = plan_view(plan, notes, inventory=inventory, rules=rules)
        return io.NodeOutput(plan, view.text, plan.recipe, ui=shown(view))
