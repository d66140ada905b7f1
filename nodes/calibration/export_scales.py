"""The static scales of a calibration for other converters."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.calibration import CalibrationStatistics, parse_policy
from ...quant.calibration.input_scale.export import FLAVOURS, export_scales, write_scales
from ...quant.calibration.input_scale.read import formats_with_scales
from ...quant.text import shorten
from ..files import folders
from ..files.artefacts import INPUT_SCALES
from ..inputs.input_scale import AMAX, FIXED, PERCENTILE, chosen_policy, input_scale_options
from ..inputs.sockets import CATEGORY, StatisticsSocket


class ExportInputScales(io.ComfyNode):
    """The static scales of a calibration for other converters."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryExportInputScales",
            display_name="Export Input Scales",
            category=CATEGORY,
            description=(
                "Saves the static activation scales of a calibration as the JSON that other "
                "converters read."
            ),
            search_aliases=["nvfp4 input_scale", "convert_to_quant", "export scales", "json"],
            inputs=[
                StatisticsSocket.Input(
                    "statistics", tooltip="From Calibration Result or Load Calibration."
                ),
                io.String.Input(
                    "name",
                    default="input_scales",
                    tooltip="A file in output/nvfp4_foundry/input_scales; a number is added if the "
                    "name is taken.",
                ),
                io.DynamicCombo.Input(
                    "input_scale",
                    options=input_scale_options((AMAX, PERCENTILE, FIXED)),
                    tooltip="What the scales represent, as in Select NVFP4 Preset.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(FLAVOURS),
                    default="layers",
                    tooltip="layers: layer -> scale, for convert_to_quant. tensors: "
                    "layer.input_scale -> scale. summary: what was seen, for convert_nvfp4.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(formats_with_scales()),
                    default="nvfp4",
                    tooltip="The format the scales are for. A float8 scale is six times an NVFP4 "
                    "scale.",
                ),
                io.String.Input(
                    "prefix",
                    default="",
                    advanced=True,
                    tooltip="Put before every name, e.g. model.diffusion_model.",
                ),
            ],
            outputs=[io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, name: str | None, input_scale: Any = None) -> bool | str:
        """Say before the queue starts when the name is bad."""
        return INPUT_SCALES.check_new(name, optional=False)

    @classmethod
    def execute(
        cls,
        statistics: CalibrationStatistics,
        name: str,
        layout: str,
        format: str,
        prefix: str,
        input_scale: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        """Export."""
        export = export_scales(
            statistics,
            parse_policy(*chosen_policy(input_scale)),
            flavour=layout,
            format_name=format,
            prefix=prefix.strip(),
        )
        path = folders.free_name(INPUT_SCALES.path(name))
        write_scales(export, path)
        lines = [f"saved {path}", f"{export.layers} layers have a static scale"]
        if export.left_out:
            lines.append(f"none for {len(export.left_out)}: {shorten(export.left_out)}")
        return io.NodeOutput(str(path), ui=ui.PreviewText("\n".join(lines)))
