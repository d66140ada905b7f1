"""A preset, its settings and extra rules as a recipe."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.errors import RecipeError
from ...quant.formats import FORMATS
from ...quant.hardware.generations import GENERATIONS, Generation
from ...quant.hardware.machine import examine_machine
from ...quant.planning import Preset, for_gpu, get_preset, load_presets, parse_rule_lines
from ...quant.planning.presets import Setting
from ...quant.reports.gpu_support import describe_support
from ...quant.rounding import DEFAULT_ROUNDING, ROUNDINGS
from ..inputs.input_scale import chosen_policy, input_scale_options, modified, why_not
from ..inputs.sockets import CATEGORY, RecipeSocket

_AS_WRITTEN, _THIS_MACHINE = "as the preset says", "auto: this machine"
_TARGETS: dict[str, Generation] = {
    title: generation for generation, title in GENERATIONS.items() if generation != "none"
}


class SelectPreset(io.ComfyNode):
    """A preset, its settings and extra rules become a recipe."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundrySelectPreset",
            display_name="Select NVFP4 Preset",
            category=CATEGORY,
            description="Chooses which layers get which format, and how the numbers are chosen. "
            "Shows which of the formats run natively on this machine and which only save memory.",
            search_aliases=["nvfp4 recipe", "quantization preset", "mixed precision"],
            inputs=[
                io.DynamicCombo.Input(
                    "preset",
                    options=[
                        io.DynamicCombo.Option(preset.name, [_widget(s) for s in preset.settings])
                        for preset in _by_usefulness()
                    ],
                    tooltip="The preset of your model; 'smart' for any other transformer. A "
                    "preset used on another model stops with an error that names what it is.",
                ),
                io.String.Input(
                    "extra_rules",
                    multiline=True,
                    default="",
                    placeholder="blocks.*.ffn.2 = bf16\n* @ first:3 = float8_e4m3fn",
                    tooltip="One 'pattern = format' a line; they win over the preset. Patterns "
                    "are globs over layer names, '@ first:N' or '@ last:N' limits them to blocks. "
                    f"Formats: {', '.join(FORMATS)}.",
                ),
                io.Combo.Input(
                    "rounding",
                    options=list(ROUNDINGS),
                    default=DEFAULT_ROUNDING,
                    tooltip="How the scales of the weights are chosen. weighted: least error, "
                    "channels that carry more counting more where there is a calibration. gptq: "
                    "errors are made up for by other channels; needs a calibration with Hessians. "
                    "gptaq: gptq that also makes up for 4-bit activations; for Blackwell. "
                    "mse: least error, all channels alike. max: largest value to largest code, as "
                    "other converters do; fastest.",
                ),
                io.DynamicCombo.Input(
                    "input_scale",
                    options=input_scale_options(),
                    tooltip="How the static activation scales are derived from the calibration. "
                    "'amax' with a headroom of 4 is safe: too large a scale costs nothing, too "
                    "small a scale ruins the picture. 'values from a file' needs no calibration.",
                ),
                io.Combo.Input(
                    "gpu",
                    options=[_AS_WRITTEN, _THIS_MACHINE, *_TARGETS],
                    default=_AS_WRITTEN,
                    optional=True,
                    tooltip="The GPU the checkpoint is for. Presets are for Blackwell. Ada or "
                    "Hopper: float8 instead of NVFP4. Turing or Ampere: convrot_w4a4 instead of "
                    "NVFP4, int8_convrot instead of float8. Formats with 16-bit activations and "
                    "your extra rules stay.",
                ),
            ],
            outputs=[
                RecipeSocket.Output(display_name="RECIPE"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, extra_rules: str | None, preset: Any = None, input_scale: Any = None
    ) -> bool | str:
        """Say before the queue starts when a rule, the preset's name or a file is wrong.

        ComfyUI hands over dynamic inputs whether they are asked for or not, as a name or a dict.
        """
        try:
            parse_rule_lines(extra_rules or "")
            name = preset.get("preset") if isinstance(preset, dict) else preset
            if name is not None:
                get_preset(name)
        except RecipeError as error:
            return str(error)
        return why_not(input_scale) or True

    @classmethod
    def fingerprint_inputs(cls, input_scale: Any = None, **others: Any) -> float:
        """Look again when the file of input scales changed."""
        return modified(input_scale)

    @classmethod
    def execute(
        cls,
        extra_rules: str,
        rounding: str,
        preset: dict[str, Any] | None = None,
        input_scale: dict[str, Any] | None = None,
        gpu: str = _AS_WRITTEN,
    ) -> io.NodeOutput:
        """Build the recipe."""
        if preset is None:  # what ComfyUI makes of an unknown choice
            raise RecipeError("this workflow names a preset that is not installed; choose another")
        settings = {key: value for key, value in preset.items() if key != "preset"}
        policy, headroom = chosen_policy(input_scale)
        machine = examine_machine()
        recipe = get_preset(preset["preset"]).build(settings)
        if gpu != _AS_WRITTEN:
            recipe = for_gpu(recipe, _TARGETS.get(gpu, machine.generation))
        recipe = recipe.with_rules(parse_rule_lines(extra_rules))
        recipe = recipe.with_numbers(rounding, policy, headroom)
        text = describe_support(recipe, machine)
        return io.NodeOutput(recipe, text, ui=ui.PreviewText(text))


def _by_usefulness() -> list[Preset]:
    """Return the presets, first the one that fits any model: it is what a new node shows."""
    presets = load_presets()
    return [presets["smart"], *(p for name, p in presets.items() if name != "smart")]


def _widget(setting: Setting) -> io.Input:
    """Return the widget for a preset's setting."""
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
