"""The node that turns an activation log into a calibration."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.calibration import load_statistics, save_statistics
from ...quant.calibration.import_log import import_activation_log
from ...quant.reports.view import calibration_view
from ..bridge.model_source import ModelSource
from ..files import folders
from ..files.artefacts import CALIBRATIONS
from ..foundry_node import FoundryNode
from ..inputs.save_as import save_as_input
from ..inputs.sockets import INTEROP, StatisticsSocket
from ..prompts.validation import constant_inputs
from ..reports.errors import refused, refused_if_invalid
from ..reports.shown import shown


class ImportActivationLog(FoundryNode):
    """Turn the log of a patched ComfyUI into a calibration."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryImportActivationLog",
            display_name="Import Activation Log",
            category=INTEROP,
            description=(
                "Turns a log that ComfyUI writes with the input_scale patch of convert_nvfp4 into "
                "a calibration. It gives static input scales, but has no inputs to measure errors "
                "on."
            ),
            search_aliases=["nvfp4 log", "input_scale log", "convert_nvfp4", "calibration"],
            inputs=[
                io.Combo.Input(
                    "log_file",
                    options=folders.log_files(),
                    tooltip="A .txt, .log or .tsv file in ComfyUI's input folder, or the same "
                    "compressed as .gz, .xz or .bz2.",
                ),
                io.Model.Input("model", tooltip="The model that was logged."),
                io.Boolean.Input(
                    "ignore_unknown",
                    default=False,
                    tooltip="Leave out layers that the model does not have, such as the layers of "
                    "a quantized text encoder. If this is off, more than a few unknown layers are "
                    "an error.",
                ),
                save_as_input("calibration", "Load Calibration"),
            ],
            outputs=[
                StatisticsSocket.Output(display_name="CALIBRATION"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, log_file: str | None) -> bool | str:
        """Report a missing file or an invalid name before the queue starts."""
        try:
            if log_file is not None:
                folders.input_path(log_file)
        except FileNotFoundError as error:
            return refused(str(error))
        return refused_if_invalid(CALIBRATIONS.check_new(constant_inputs().get("save_as")))

    @classmethod
    def fingerprint_inputs(cls, log_file: str, save_as: str = "", **others: Any) -> list[float]:
        """Return when the log changed, and how often the saved file was deleted."""
        changed = folders.input_path(log_file).stat().st_mtime
        return [changed, CALIBRATIONS.times_lost(save_as)]

    @classmethod
    def execute(
        cls, log_file: str, model: Any, ignore_unknown: bool, save_as: str
    ) -> io.NodeOutput:
        """Return the calibration and its report."""
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
        view = calibration_view(statistics, [*saved, *imported.notes])
        return io.NodeOutput(statistics, view.text, ui=shown(view))
