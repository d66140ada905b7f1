"""Choosing formats by what layers lose, within a size, bits per weight or an error."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.derive import MIX_FORMATS, Budget, mix_plan
from ...quant.errors import PlanError
from ...quant.formats import FORMATS
from ...quant.planning import Plan, take_inventory
from ...quant.reports.mix import describe_mix
from ...quant.reports.pictures.frontier import draw_frontier
from ...quant.reports.pictures.sensitivity import picture_tensor
from ...quant.sensitivity.artefact import Sensitivity
from ..bridge.model_source import ModelSource
from ..bridge.models import progress_bar
from ..files.artefacts import RECIPES
from ..inputs.sockets import CATEGORY, PlanSocket, RecipeSocket, SensitivitySocket

_OWN_SIZE, _SIZE, _BITS, _ERROR = (
    "preset's own size", "target size", "average bits", "largest error",
)  # fmt: skip
_ALLOW = "allow_"
_GIGABYTE = 10**9


class AutoMix(io.ComfyNode):
    """The best mix of formats within a budget, by measured sensitivity."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryAutoMix",
            display_name="Auto Mix",
            category=CATEGORY,
            description=(
                "Chooses the format of every layer that a plan quantizes anew, by measured "
                "sensitivity: the least error within a size, or the least size within an error. "
                "Shows what other sizes would cost."
            ),
            search_aliases=[
                "nvfp4 mix",
                "mixed precision",
                "bit allocation",
                "size budget",
                "bits per weight",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model to quantize, the one that was planned."),
                PlanSocket.Input(
                    "plan",
                    tooltip="From Plan Layers. Linears it quantizes are chosen anew, all else "
                    "stays as planned.",
                ),
                SensitivitySocket.Input(
                    "sensitivity",
                    tooltip="From Measure Sensitivity, Probe Result or Load Sensitivity, of this "
                    "model.",
                ),
                io.DynamicCombo.Input(
                    "budget",
                    options=_budget_options(),
                    tooltip="The limit. A size or bits: the least error within it. An error: the "
                    "least size within it.",
                ),
                io.String.Input(
                    "save_as",
                    default="",
                    tooltip="Also save the mix as a recipe under this name, for Load Recipe; a "
                    "number is added if the name is taken. Empty: do not.",
                ),
                # last: formats to come are added after them, which workflows saved before survive
                *(_format_switch(name) for name in FORMATS if name != "fp32"),
            ],
            outputs=[
                PlanSocket.Output(display_name="PLAN"),
                RecipeSocket.Output(display_name="RECIPE"),
                io.String.Output(display_name="report"),
                io.Image.Output(display_name="frontier"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, save_as: str | None, budget: Any = None) -> bool | str:
        """Say before the queue starts when the name is bad.

        ComfyUI hands over dynamic inputs whether they are asked for or not.
        """
        return RECIPES.check_new(save_as)

    @classmethod
    def execute(
        cls,
        model: Any,
        plan: Plan,
        sensitivity: Sensitivity,
        save_as: str,
        budget: dict[str, Any] | None = None,
        **allowed: bool,
    ) -> io.NodeOutput:
        """Mix."""
        if budget is None:  # what ComfyUI makes of an unknown choice
            raise PlanError("this workflow asks for a budget of an unknown kind; choose another")
        formats = [name for name in FORMATS if allowed.get(_ALLOW + name, name in MIX_FORMATS)]
        with ModelSource(model) as source:
            mix = mix_plan(
                plan,
                take_inventory(source),
                sensitivity,
                _budget(budget),
                formats,
                fingerprint=source.fingerprint(),
                on_progress=progress_bar(),
            )
        recipe = f"{mix.recipe.to_json()}\n"
        saved = RECIPES.save(
            save_as,
            lambda path: path.read_text(encoding="utf-8", errors="replace") == recipe,
            lambda path: path.write_text(recipe, encoding="utf-8"),
        )
        text = "\n".join([*saved, describe_mix(mix)])
        picture = picture_tensor(draw_frontier(mix))
        shown = {**ui.PreviewText(text).as_dict(), **ui.PreviewImage(picture).as_dict()}
        return io.NodeOutput(mix.plan, mix.recipe, text, picture, ui=shown)


def _budget_options() -> list[io.DynamicCombo.Option]:
    size = io.Float.Input(
        "gigabytes",
        default=4.0,
        min=0.001,
        max=1000.0,
        step=0.1,
        round=0.001,
        tooltip="The largest file, in GB of 10^9 bytes.",
    )
    bits = io.Float.Input(
        "bits",
        default=5.0,
        min=0.1,
        max=32.0,
        step=0.1,
        round=0.01,
        tooltip="Per weight of the layers that are mixed, block scales included: 4.5 is all NVFP4.",
    )
    error = io.Float.Input(
        "percent",
        default=3.0,
        min=0.001,
        max=1000.0,
        step=0.1,
        round=0.001,
        tooltip="The predicted error. Of the model's output if that was probed; else of all "
        "layers' outputs together, which is larger.",
    )
    return [
        io.DynamicCombo.Option(_OWN_SIZE, []),
        io.DynamicCombo.Option(_SIZE, [size]),
        io.DynamicCombo.Option(_BITS, [bits]),
        io.DynamicCombo.Option(_ERROR, [error]),
    ]


def _budget(choice: dict[str, Any]) -> Budget | None:
    """Return the budget for the widgets' values; None is the plan's own size."""
    kind = choice["budget"]
    if kind == _SIZE:
        return Budget(size=round(choice["gigabytes"] * _GIGABYTE))
    if kind == _BITS:
        return Budget(bits=choice["bits"])
    if kind == _ERROR:
        return Budget(error=choice["percent"] / 100)
    return None


def _format_switch(name: str) -> io.Input:
    notes = {
        "nvfp4": "4.5 bits a weight, 4-bit activations.",
        "nvfp4_w4a16": "4.5 bits a weight, 16-bit activations: as small as nvfp4, more precise "
        "and slower, so it takes the place of every nvfp4.",
        "float8_e4m3fn": "8 bits a weight, 8-bit activations.",
        "keep": "Layers may stay as they are in the source.",
        "int8_tensorwise": "8 bits a weight, 8-bit activations, one scale for all of a weight.",
        "int8_rowwise": "8 bits a weight, 8-bit activations, for Turing and newer.",
        "int8_convrot": "8 bits a weight, 8-bit activations, outliers spread by a rotation: the "
        "most precise 8-bit format, for Turing and newer.",
        "convrot_w4a4": "4 bits a weight, 4-bit activations on Turing, Ampere and Ada.",
        "convrot_w4a8": "4 bits a weight, 8-bit activations: as small as convrot_w4a4, more "
        "precise and slower.",
        "mxfp8": "8.25 bits a weight, 8-bit activations, for Blackwell.",
        "float8_e4m3fn_w8a16": "8 bits a weight, 16-bit activations: as small as float8_e4m3fn, "
        "more precise and slower.",
        "float8_e5m2": "8 bits a weight, 16-bit activations; less precise than float8_e4m3fn.",
    }
    return io.Boolean.Input(
        _ALLOW + name,
        display_name=f"allow {name}",
        optional=True,
        default=name in MIX_FORMATS,
        advanced=name not in MIX_FORMATS,
        tooltip=notes.get(name, f"Layers may be stored as {name}, not quantized."),
    )
