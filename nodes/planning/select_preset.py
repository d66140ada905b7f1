"""The node that makes a recipe from a preset, its settings and extra rules."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.errors import RecipeError
from ...quant.hardware.generations import GENERATIONS, Generation
from ...quant.hardware.machine import examine_machine
from ...quant.planning import (
    Preset,
    Recipe,
    automatic_recipe,
    for_gpu,
    get_preset,
    load_presets,
    parse_rule_lines,
)
from ...quant.planning.presets import AUTO, Setting
from ...quant.reports.gpu_support import describe_support
from ...quant.rounding import DEFAULT_ROUNDING, ROUNDINGS
from ..foundry_node import FoundryNode
from ..inputs.input_scale import chosen_policy, input_scale_options, modified, why_not
from ..inputs.oldest_comfyui import THIS, comfyui_input, for_chosen_comfyui
from ..inputs.rules import rules_input
from ..inputs.sockets import START, RecipeSocket
from ..prompts.validation import constant_inputs
from ..reports.errors import refused
from ..reports.shown import shown_text

_AS_WRITTEN, _THIS_MACHINE = "as the preset says", "auto: this machine"
_TARGETS: dict[str, Generation] = {
    title: generation for generation, title in GENERATIONS.items() if generation != "none"
}


class SelectPreset(FoundryNode):
    """Make a recipe from a preset, its settings and extra rules."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundrySelectPreset",
            display_name="Select NVFP4 Preset",
            category=START,
            description=(
                "Chooses the format of each layer, the rounding and the input scales. Shows which "
                "of the formats run natively on this machine and which only save memory."
            ),
            search_aliases=[
                "nvfp4 recipe",
                "quantize",
                "quantization preset",
                "mixed precision",
                "fp4",
                "fp8",
                "float8",
                "4-bit",
                "compress",
                "shrink",
                "quantise",
                "int8",
            ],
            inputs=[
                io.DynamicCombo.Input(
                    "preset",
                    options=[
                        io.DynamicCombo.Option(AUTO, []),
                        *(
                            io.DynamicCombo.Option(
                                preset.name, [_widget(s) for s in preset.settings]
                            )
                            for preset in _by_usefulness()
                        ),
                    ],
                    tooltip="'auto' uses the preset for your model, and 'smart' for a model "
                    "without one. Choose a preset to change its settings. A preset on the wrong "
                    "model stops with an error that names the model.",
                ),
                rules_input("extra_rules", "These rules win over the preset."),
                *_number_inputs(),
            ],
            outputs=[
                RecipeSocket.Output(display_name="RECIPE"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, extra_rules: str | None, *, preset: Any = None, input_scale: Any = None
    ) -> bool | str:
        """Report an invalid rule, preset or file before the queue starts."""
        inputs = constant_inputs()
        try:
            parse_rule_lines(extra_rules or "")
            name = inputs.get("preset", AUTO)
            if name != AUTO:
                get_preset(name)
        except RecipeError as error:
            return refused(str(error))
        problem = why_not(inputs)
        return refused(problem) if problem else True

    @classmethod
    def fingerprint_inputs(cls, input_scale: Any = None, **others: Any) -> float:
        """Return when the file of input scales changed, so that a changed file is read again."""
        return modified(input_scale)

    @classmethod
    def execute(
        cls,
        extra_rules: str,
        rounding: str,
        preset: dict[str, Any] | None = None,
        input_scale: dict[str, Any] | None = None,
        gpu: str = _AS_WRITTEN,
        comfyui: str = THIS,
    ) -> io.NodeOutput:
        """Return the recipe and how its formats run on this machine."""
        if preset is None:  # ComfyUI turns an unknown choice into None
            raise RecipeError(
                "this workflow uses a preset that is not installed; choose another preset"
            )
        policy = chosen_policy(input_scale)
        machine = examine_machine()
        recipe = _recipe(preset).for_comfyui(None if comfyui == THIS else comfyui)
        if gpu != _AS_WRITTEN:
            target = for_chosen_comfyui(recipe, comfyui).oldest_comfyui
            recipe = for_gpu(recipe, _TARGETS.get(gpu, machine.generation), target)
        recipe = recipe.with_rules(parse_rule_lines(extra_rules))
        recipe = recipe.with_numbers(rounding, policy)
        text = describe_support(recipe, machine)
        return io.NodeOutput(recipe, text, ui=shown_text(f"Preset {recipe.name}", text))


def _recipe(choice: dict[str, Any]) -> Recipe:
    """Return the recipe of a preset with its settings, or the automatic one."""
    if choice["preset"] == AUTO:
        return automatic_recipe()
    settings = {key: value for key, value in choice.items() if key != "preset"}
    return get_preset(choice["preset"]).build(settings)


def _number_inputs() -> list[io.Input]:
    """Return the inputs for the rounding, the input scales and the GPU."""
    return [
        io.Combo.Input(
            "rounding",
            options=list(ROUNDINGS),
            default=DEFAULT_ROUNDING,
            tooltip="How to round the weights. weighted: the least error; with a "
            "calibration, channels with larger inputs count more. gptq: other channels "
            "make up for the error of each channel; needs a calibration with Hessians; nearly "
            "lossless on GPUs before Blackwell, which multiply NVFP4 in 16 bits. "
            "gptaq: like gptq, and makes up for the error of 4-bit activations too; for "
            "Blackwell. mse: the least error, with all channels alike. max: maps the "
            "largest value to the largest code, as other converters do; the fastest.",
        ),
        io.DynamicCombo.Input(
            "input_scale",
            options=input_scale_options(),
            tooltip="How to derive static input scales from the calibration. 'amax' with a "
            "headroom of 4 is safe: a scale that is too large costs nothing, but one that "
            "is too small ruins the picture. 'values from a file' needs no calibration.",
        ),
        io.Combo.Input(
            "gpu",
            options=[_AS_WRITTEN, _THIS_MACHINE, *_TARGETS],
            default=_AS_WRITTEN,
            optional=True,
            tooltip="The GPU that the checkpoint is for. Presets are made for Blackwell. "
            "Ada or Hopper: float8 instead of NVFP4. Turing or Ampere: convrot_w4a4 "
            "instead of NVFP4, and int8_convrot instead of float8. Ada, Hopper and Ampere get "
            "asym_w4a8_int8 instead of NVFP4 if comfyui is 0.33 or newer. Formats with 16-bit "
            "activations and your extra rules do not change.",
        ),
        comfyui_input(),
    ]


def _by_usefulness() -> list[Preset]:
    """Return the presets, with the one for any model first: a new node shows the first."""
    presets = load_presets()
    return [presets["smart"], *(p for name, p in presets.items() if name != "smart")]


def _option(preset: Preset) -> io.DynamicCombo.Option:
    return io.DynamicCombo.Option(preset.name, [_widget(s) for s in preset.settings])


def _widget(setting: Setting) -> io.Input:
    """Return the widget for a setting of a preset."""
    if setting.type == "int":
        return io.Int.Input(
            setting.name,
            display_name=setting.label,
            default=int(setting.default),
            min=setting.min,
            max=setting.max,
            tooltip=setting.tooltip,
        )
    return io.Combo.Input(
        setting.name,
        display_name=setting.label,
        options=list(setting.choices),
        default=str(setting.default),
        tooltip=setting.tooltip,
    )
