"""The node that chooses formats by sensitivity within a size or an error."""

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
from ..inputs.save_as import save_as_input
from ..inputs.sockets import CATEGORY, PlanSocket, RecipeSocket, SensitivitySocket

_OWN_SIZE, _SIZE, _BITS, _ERROR = (
    "preset's own size", "target size", "average bits", "largest error",
)  # fmt: skip
_ALLOW = "allow_"
_GIGABYTE = 10**9


class AutoMix(io.ComfyNode):
    """Choose the best mix of formats within a budget, by measured sensitivity."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryAutoMix",
            display_name="Auto Mix",
            category=CATEGORY,
            description=(
                "Chooses a format for every layer that a plan quantizes, based on measured "
                "sensitivity: the smallest error within a size, or the smallest file within an "
                "error. Shows what other sizes would cost."
            ),
            search_aliases=[
                "nvfp4 mix",
                "mixed precision",
                "auto quantize",
                "compress to size",
                "bit allocation",
                "size budget",
                "bits per weight",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model that you planned and measured."),
                PlanSocket.Input(
                    "plan",
                    tooltip="From Plan Layers. Auto Mix chooses new formats only for the Linear "
                    "layers that the plan quantizes.",
                ),
                SensitivitySocket.Input(
                    "sensitivity",
                    tooltip="From Probe Result, Load Sensitivity or Measure Sensitivity, for this "
                    "model.",
                ),
                io.DynamicCombo.Input(
                    "budget",
                    options=_budget_options(),
                    tooltip="The limit. With a size or bits, Auto Mix finds the smallest error. "
                    "With an error, it finds the smallest file.",
                ),
                save_as_input("mix as a recipe", "Load Recipe"),
                # Last, because future formats are added at the end. Saved workflows keep loading.
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
        """Report an invalid name before the queue starts.

        ComfyUI always passes dynamic inputs, so ``budget`` must be accepted.
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
        """Return the mix as a plan and a recipe, with its report and chart."""
        if budget is None:  # ComfyUI turns an unknown choice into None
            raise PlanError("this workflow uses an unknown kind of budget; choose another kind")
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
        tooltip="The largest allowed file size, in GB of 10^9 bytes.",
    )
    bits = io.Float.Input(
        "bits",
        default=5.0,
        min=0.1,
        max=32.0,
        step=0.1,
        round=0.01,
        tooltip="Bits per weight of the mixed layers, including block scales. 4.5 is all NVFP4.",
    )
    error = io.Float.Input(
        "percent",
        default=3.0,
        min=0.001,
        max=1000.0,
        step=0.1,
        round=0.001,
        tooltip="The largest predicted error, in %. It is the error of the model's output if you "
        "probed the model. Otherwise it is the error of all layer outputs together, which is "
        "larger.",
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
        "nvfp4": "4.5 bits per weight, 4-bit activations.",
        "nvfp4_w4a16": "4.5 bits per weight, 16-bit activations. It is as small as nvfp4, more "
        "precise and slower, so it replaces every nvfp4.",
        "float8_e4m3fn": "8 bits per weight, 8-bit activations.",
        "keep": "Layers may stay as they are in the source.",
        "int8_tensorwise": "8 bits per weight, 8-bit activations, one scale per layer.",
        "int8_rowwise": "8 bits per weight, 8-bit activations, for Turing and newer.",
        "int8_convrot": "8 bits per weight, 8-bit activations, with a rotation that spreads "
        "outliers. It is the most precise 8-bit format, for Turing and newer.",
        "convrot_w4a4": "4 bits per weight, 4-bit activations on Turing, Ampere and Ada.",
        "convrot_w4a8": "4 bits per weight, 8-bit activations. It is as small as convrot_w4a4, "
        "more precise and slower.",
        "mxfp8": "8.25 bits per weight, 8-bit activations, for Blackwell.",
        "float8_e4m3fn_w8a16": "8 bits per weight, 16-bit activations. It is as small as "
        "float8_e4m3fn, more precise and slower.",
        "float8_e5m2": "8 bits per weight, 16-bit activations. It is less precise than "
        "float8_e4m3fn.",
    }
    return io.Boolean.Input(
        _ALLOW + name,
        display_name=f"allow {name}",
        optional=True,
        default=name in MIX_FORMATS,
        advanced=name not in MIX_FORMATS,
        tooltip=notes.get(name, f"Layers may be stored as {name}, which is not quantized."),
    )
