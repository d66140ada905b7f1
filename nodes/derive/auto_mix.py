"""The node that chooses formats by sensitivity within a budget."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.derive import Budget, Mix, mix_plan, with_four_bit
from ...quant.errors import PlanError, RecipeError
from ...quant.files.write import write_text
from ...quant.planning import Plan, parse_rule_lines, take_inventory
from ...quant.reports.pictures.frontier import draw_frontier
from ...quant.reports.pictures.sensitivity import picture_tensor
from ...quant.reports.view import mix_view
from ...quant.sensitivity.artefact import Sensitivity
from ..bridge.model_source import ModelSource
from ..bridge.progress import progress_bar
from ..files.artefacts import RECIPES
from ..foundry_node import FoundryNode
from ..inputs.formats import FormatChoice, chosen_formats
from ..inputs.rules import rules_input
from ..inputs.save_as import save_as_input
from ..inputs.sockets import MEASURE, PlanSocket, RecipeSocket, SensitivitySocket
from ..prompts.validation import constant_inputs
from ..reports.errors import refused, refused_if_invalid
from ..reports.shown import shown
from ..reports.theme import page_theme

_OWN_SIZE, _SIZE, _BITS, _ERROR, _LAYER_ERROR = (
    "preset's own size", "target size", "average bits", "largest error", "largest error of a layer",
)  # fmt: skip
_GIGABYTE = 10**9


class AutoMix(FoundryNode):
    """Choose the best mix of formats within a budget, by measured sensitivity."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryAutoMix",
            display_name="Auto Mix",
            category=MEASURE,
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
                "shrink to size",
                "bit allocation",
                "size budget",
                "bits per weight",
                "error threshold",
                "fp8",
            ],
            inputs=_inputs(),
            outputs=[
                PlanSocket.Output(display_name="PLAN"),
                RecipeSocket.Output(display_name="RECIPE"),
                io.String.Output(display_name="report"),
                io.Image.Output(display_name="frontier"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, save_as: str | None, *, budget: Any = None) -> bool | str:
        """Report an invalid name or rule before the queue starts."""
        rules = constant_inputs().get("rules", "")
        try:
            parse_rule_lines(rules if isinstance(rules, str) else "")
        except RecipeError as error:
            return refused(str(error))
        return refused_if_invalid(RECIPES.check_new(save_as))

    @classmethod
    def fingerprint_inputs(cls, save_as: str = "", **others: Any) -> int:
        """Return how often the saved file was deleted, so that it is saved again."""
        return RECIPES.times_lost(save_as)

    @classmethod
    def execute(
        cls,
        model: Any,
        plan: Plan,
        sensitivity: Sensitivity,
        save_as: str,
        budget: dict[str, Any] | None = None,
        formats: str | list[str] | None = None,
        rules: str = "",
        four_bit_percent: float = 0.0,
    ) -> io.NodeOutput:
        """Return the mix as a plan and a recipe, with its report and chart."""
        if budget is None:  # ComfyUI turns an unknown choice into None
            raise PlanError("this workflow uses an unknown kind of budget; choose another kind")
        with ModelSource(model) as source:
            inventory = take_inventory(source)
            mix = mix_plan(
                plan,
                inventory,
                sensitivity,
                with_four_bit(_budget(budget), plan.bytes_after, four_bit_percent / 100),
                chosen_formats(formats),
                rules=parse_rule_lines(rules),
                fingerprint=source.fingerprint(),
                on_progress=progress_bar(),
            )
        saved = _saved(mix, save_as)
        view = mix_view(mix, sensitivity, saved, inventory=inventory, rules=rules)
        picture = picture_tensor(draw_frontier(mix, page_theme()))
        # the page draws the curve itself; the picture is for other nodes
        return io.NodeOutput(mix.plan, mix.recipe, view.text, picture, ui=shown(view))


def _saved(mix: Mix, name: str) -> list[str]:
    """Save the recipe unless the name is empty; return the lines for the report."""
    recipe = f"{mix.recipe.to_json()}\n"
    return RECIPES.save(
        name,
        lambda path: path.read_text(encoding="utf-8", errors="replace") == recipe,
        lambda path: write_text(path, recipe),
    )


def _inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="The model that you planned and measured."),
        PlanSocket.Input(
            "plan",
            tooltip="From Plan Layers. Auto Mix chooses new formats only for the Linear layers "
            "that the plan quantizes.",
        ),
        SensitivitySocket.Input(
            "sensitivity", tooltip="From Probe Result or Measure Sensitivity, for this model."
        ),
        io.DynamicCombo.Input(
            "budget",
            options=_budget_options(),
            tooltip="The limit. With a size or bits, Auto Mix finds the smallest error. With an "
            "error, it finds the smallest file.",
        ),
        save_as_input("mix as a recipe", "Load Recipe"),
        FormatChoice.Input(
            "formats",
            tooltip="The formats to choose from. keep: layers may stay as they are in the source. "
            "nvfp4_w4a16 is as small as nvfp4 and more precise, but slower, so it would replace "
            "every nvfp4. For Turing and Ampere choose convrot_w4a4, int8_convrot and keep.",
        ),
        rules_input("rules", "These layers get exactly these formats.", optional=True),
        io.Float.Input(
            "four_bit_percent",
            optional=True,
            default=0.0,
            min=0.0,
            max=100.0,
            step=5.0,
            round=0.1,
            tooltip="Keep at least this share of the mixed weights, in %, in 4-bit products, the "
            "fastest on Blackwell. Use it if you add asym_w4a8_int8 to the formats, which is as "
            "small as nvfp4 and more precise, but slower there.",
        ),
    ]


def _budget_options() -> list[io.DynamicCombo.Option]:
    size = io.Float.Input(
        "gigabytes",
        default=4.0,
        min=0.001,
        max=1000.0,
        step=0.001,  # ComfyUI shows and keeps as many digits
        round=0.001,
        tooltip="The largest allowed file size, in GB of 10^9 bytes.",
    )
    bits = io.Float.Input(
        "bits",
        default=5.0,
        min=0.1,
        max=32.0,
        step=0.01,
        round=0.01,
        tooltip="Bits per weight of the mixed layers, including block scales. 4.5 is all NVFP4.",
    )
    error = io.Float.Input(
        "percent",
        default=3.0,
        min=0.001,
        max=1000.0,
        step=0.01,
        round=0.001,
        tooltip="The largest predicted error, in %. It is the error of the model's output if you "
        "probed the model. Otherwise it is the error of all layer outputs together, which is "
        "larger.",
    )
    layer_error = io.Float.Input(
        "layer_percent",
        default=8.0,
        min=0.1,
        max=99.0,
        step=0.5,
        round=0.001,
        tooltip="The largest error of a layer's output, in %, with rounded inputs. Every layer "
        "gets its smallest format within it, or the most precise one if none is.",
    )
    return [
        io.DynamicCombo.Option(_OWN_SIZE, []),
        io.DynamicCombo.Option(_SIZE, [size]),
        io.DynamicCombo.Option(_BITS, [bits]),
        io.DynamicCombo.Option(_ERROR, [error]),
        io.DynamicCombo.Option(_LAYER_ERROR, [layer_error]),
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
    if kind == _LAYER_ERROR:
        return Budget(layer_error=choice["layer_percent"] / 100)
    return None
