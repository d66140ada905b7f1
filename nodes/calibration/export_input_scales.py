"""The node that exports static input scales for other converters."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.calibration import CalibrationStatistics
from ...quant.calibration.input_scale.export import FLAVOURS, export_scales, write_scales
from ...quant.calibration.input_scale.read import formats_with_scales
from ...quant.text import shorten
from ..files.artefacts import INPUT_SCALES
from ..files.names import free_name
from ..foundry_node import FoundryNode
from ..inputs.input_scale import AMAX, FIXED, PERCENTILE, chosen_policy, input_scale_options
from ..inputs.sockets import INTEROP, StatisticsSocket
from ..reports.errors import refused_if_invalid
from ..reports.shown import shown_text


class ExportInputScales(FoundryNode):
    """Save the static input scales of a calibration for other converters."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryExportInputScales",
            display_name="Export Input Scales",
            category=INTEROP,
            description=(
                "Saves the static input scales of a calibration as JSON that other converters read."
            ),
            search_aliases=["nvfp4 input_scale", "convert_to_quant", "export scales", "json"],
            inputs=[
                StatisticsSocket.Input(
                    "statistics",
                    display_name="calibration",
                    tooltip="The calibration, from Calibration Result or Load Calibration.",
                ),
                io.String.Input(
                    "name",
                    default="input_scales",
                    tooltip="The name of the file in output/nvfp4_foundry/input_scales. If the "
                    "name is taken, a number is added.",
                ),
                io.DynamicCombo.Input(
                    "input_scale",
                    options=input_scale_options((AMAX, PERCENTILE, FIXED)),
                    tooltip="How to derive the scales, as in Select NVFP4 Preset.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(FLAVOURS),
                    default="layers",
                    tooltip="layers: layer -> scale, for convert_to_quant. tensors: "
                    "layer.input_scale -> scale. summary: the observed ranges, for convert_nvfp4.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(formats_with_scales()),
                    default="nvfp4",
                    tooltip="The format that the scales are for. A float8 scale is six times as "
                    "large as an NVFP4 scale.",
                ),
                io.String.Input(
                    "prefix",
                    default="",
                    advanced=True,
                    tooltip="Text to put before every name, for example model.diffusion_model.",
                ),
            ],
            outputs=[io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, name: str | None, *, input_scale: Any = None) -> bool | str:
        """Report an invalid name before the queue starts."""
        return refused_if_invalid(INPUT_SCALES.check_new(name, optional=False))

    @classmethod
    def fingerprint_inputs(cls, name: str = "", **others: Any) -> int:
        """Return how often the saved file was deleted, so that it is saved again."""
        return INPUT_SCALES.times_lost(name)

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
        """Save the scales and return the path."""
        export = export_scales(
            statistics,
            chosen_policy(input_scale),
            flavour=layout,
            format_name=format,
            prefix=prefix.strip(),
        )
        path = free_name(INPUT_SCALES.path(name))
        write_scales(export, path)
        INPUT_SCALES.remember(name, path)
        lines = [f"saved {path}", f"{export.layers} layers have a static scale"]
        if export.left_out:
            lines.append(f"{len(export.left_out)} layers have none: {shorten(export.left_out)}")
        return io.NodeOutput(str(path), ui=shown_text("Input scales", "\n".join(lines)))
