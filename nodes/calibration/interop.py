"""Working with other tools: their logs, their converters, the checkpoints they made."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.calibration import (
    CalibrationStatistics,
    load_statistics,
    parse_policy,
    save_statistics,
)
from ...quant.calibration.import_log import import_activation_log
from ...quant.calibration.input_scale.export import FLAVOURS, export_scales, write_scales
from ...quant.calibration.input_scale.read import formats_with_scales
from ...quant.checkpoint import rescale_checkpoint
from ...quant.reports.calibration import describe_statistics
from ...quant.reports.rescale import describe_rescale
from ...quant.sources import open_tensors
from ...quant.text import shorten
from ..bridge.model_source import ModelSource
from ..bridge.models import progress_bar
from ..files import folders
from ..files.artefacts import CALIBRATIONS, INPUT_SCALES
from ..inputs.input_scale import (
    AMAX,
    FIXED,
    PERCENTILE,
    chosen_policy,
    input_scale_options,
    modified,
    why_not,
)
from ..inputs.sockets import CATEGORY, StatisticsSocket
from ..inputs.target import resolve_target, target_inputs, validate_target


class ImportActivationLog(io.ComfyNode):
    """A log of a patched ComfyUI becomes a calibration."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryImportActivationLog",
            display_name="Import Activation Log",
            category=CATEGORY,
            description=(
                "Makes a calibration of the log that ComfyUI writes with the input_scale patch of "
                "convert_nvfp4. It gives static activation scales; it holds no inputs to measure "
                "errors on."
            ),
            search_aliases=["nvfp4 log", "input_scale log", "convert_nvfp4", "calibration"],
            inputs=[
                io.Combo.Input(
                    "log_file",
                    options=folders.log_files(),
                    tooltip="A .txt, .log or .tsv file in ComfyUI's input folder, also .gz, .xz "
                    "or .bz2.",
                ),
                io.Model.Input("model", tooltip="The model that was logged."),
                io.Boolean.Input(
                    "ignore_unknown",
                    default=False,
                    tooltip="Leave out layers the model does not have, such as those of a "
                    "quantized text encoder. Otherwise more than a few are an error.",
                ),
                io.String.Input(
                    "save_as",
                    default="",
                    tooltip="Also save it under this name, for Load Calibration; a number is added "
                    "if the name is taken. Empty: do not.",
                ),
            ],
            outputs=[
                StatisticsSocket.Output(display_name="STATISTICS"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, log_file: str | None, save_as: str | None) -> bool | str:
        """Say before the queue starts when the file is gone or the name is bad."""
        try:
            if log_file is not None:
                folders.input_path(log_file)
        except FileNotFoundError as error:
            return str(error)
        return CALIBRATIONS.check_new(save_as)

    @classmethod
    def fingerprint_inputs(cls, log_file: str, **others: Any) -> float:
        """Read again when the log grew."""
        return folders.input_path(log_file).stat().st_mtime

    @classmethod
    def execute(
        cls, log_file: str, model: Any, ignore_unknown: bool, save_as: str
    ) -> io.NodeOutput:
        """Import."""
        with ModelSource(model) as source:
            fingerprint = source.fingerprint()
        imported = import_activation_log(
            folders.input_path(log_file), fingerprint, ignore_unknown=ignore_unknown
        )
        statistics = imported.statistics
        saved = CALIBRATIONS.save(
            save_as,
            lambda path: load_statistics(path).runs == statistics.runs,
            lambda path: save_statistics(statistics, path),
        )
        text = "\n".join([*saved, *imported.notes, describe_statistics(statistics)])
        return io.NodeOutput(statistics, text, ui=ui.PreviewText(text))


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


class RescaleCheckpoint(io.ComfyNode):
    """Other static activation scales for a quantized file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryRescaleCheckpoint",
            display_name="Rescale Checkpoint",
            category=CATEGORY,
            description=(
                "Gives a quantized checkpoint, of this or another tool, static activation scales "
                "from a calibration, or removes them. Nothing is quantized again: all other "
                "tensors are copied as they are."
            ),
            search_aliases=["nvfp4 input_scale", "rescale", "calibrate checkpoint", "static scale"],
            inputs=[
                io.Combo.Input(
                    "model_file",
                    options=folders.quantized_files(),
                    tooltip="A checkpoint with NVFP4 or float8 layers.",
                ),
                io.DynamicCombo.Input(
                    "input_scale",
                    options=input_scale_options(),
                    tooltip="What the scales represent. dynamic removes them.",
                ),
                StatisticsSocket.Input(
                    "statistics",
                    optional=True,
                    tooltip="Calibration of the model the checkpoint was made from.",
                ),
                *target_inputs(),
            ],
            outputs=[
                io.String.Output(display_name="path"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        model_file: str | None,
        file_name: str | None,
        folder: str | None,
        if_exists: str | None,
        input_scale: Any = None,
    ) -> bool | str:
        """Say before the queue starts when source or target are impossible."""
        problem = folders.missing_source(model_file) or why_not(input_scale)
        return problem or validate_target(file_name, folder, if_exists)

    @classmethod
    def fingerprint_inputs(
        cls, model_file: str, input_scale: Any = None, **others: Any
    ) -> list[float]:
        """Rescale again when a file changed."""
        return [*folders.modified(model_file), modified(input_scale)]

    @classmethod
    def execute(
        cls,
        model_file: str,
        file_name: str,
        folder: str,
        if_exists: str,
        input_scale: dict[str, Any] | None = None,
        statistics: CalibrationStatistics | None = None,
    ) -> io.NodeOutput:
        """Rescale."""
        path = folders.source_path(model_file)
        with open_tensors(path) as file:
            size = sum(info.nbytes for info in file.tensors.values())
        target, overwrite = resolve_target(file_name, folder, if_exists, size)
        report = rescale_checkpoint(
            path,
            parse_policy(*chosen_policy(input_scale)),
            statistics,
            target,
            overwrite=overwrite,
            on_progress=progress_bar(),
        )
        text = describe_rescale(report)
        return io.NodeOutput(str(target), text, ui=ui.PreviewText(f"saved {target}\n\n{text}"))
