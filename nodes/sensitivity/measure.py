"""What quantizing each layer costs: its output's error on calibrated inputs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.calibration import CalibrationStatistics
from ...quant.conversion.observed_input import working_bytes
from ...quant.reports.pictures.sensitivity import draw_sensitivity, picture_tensor
from ...quant.reports.sensitivity import describe_sensitivity
from ...quant.rounding import DEFAULT_ROUNDING, ROUNDINGS
from ...quant.sensitivity.artefact import Sensitivity, load_sensitivity, save_sensitivity
from ...quant.sensitivity.measure import (
    DEFAULT_CANDIDATES,
    INTEGER_CANDIDATES,
    QUANTIZED_FORMATS,
    measure_sensitivity,
)
from ..bridge.model_source import ModelSource
from ..bridge.models import compute_device, progress_bar
from ..files.artefacts import SENSITIVITIES
from ..inputs.sockets import CATEGORY, SensitivitySocket, StatisticsSocket

_CANDIDATES = {
    ", ".join(DEFAULT_CANDIDATES): DEFAULT_CANDIDATES,
    ", ".join(INTEGER_CANDIDATES): INTEGER_CANDIDATES,
    "all quantized formats": QUANTIZED_FORMATS,
    **{name: (name,) for name in QUANTIZED_FORMATS},
}


class MeasureSensitivity(io.ComfyNode):
    """Output errors of every layer in every format, on calibrated inputs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryMeasureSensitivity",
            display_name="Measure Sensitivity",
            category=CATEGORY,
            description=(
                "Measures what each layer loses in each format: the error of its weight, and of "
                "its output on inputs that a calibration has captured. Nothing is sampled."
            ),
            search_aliases=["nvfp4 sensitivity", "layer error", "which layers", "heat map"],
            inputs=[
                io.Model.Input("model", tooltip="The model to measure, not quantized."),
                StatisticsSocket.Input(
                    "statistics",
                    tooltip="From Calibration Result or Load Calibration, of this model.",
                ),
                io.Combo.Input(
                    "formats",
                    options=list(_CANDIDATES),
                    default=", ".join(DEFAULT_CANDIDATES),
                    tooltip="The candidate formats: for Blackwell, for Turing and Ampere, all of "
                    "them (slow), or one.",
                ),
                io.Combo.Input(
                    "rounding",
                    options=list(ROUNDINGS),
                    default=DEFAULT_ROUNDING,
                    tooltip="How weight scales are chosen. Take the one you will quantize with.",
                ),
                save_as_input(),
            ],
            outputs=sensitivity_outputs(),
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, save_as: str | None) -> bool | str:
        """Say before the queue starts when the name is bad."""
        return SENSITIVITIES.check_new(save_as)

    @classmethod
    def execute(
        cls,
        model: Any,
        statistics: CalibrationStatistics,
        formats: str,
        rounding: str,
        save_as: str,
    ) -> io.NodeOutput:
        """Measure."""
        with ModelSource(model) as source:
            sensitivity = measure_sensitivity(
                source,
                statistics,
                _CANDIDATES[formats],
                rounding=rounding,
                device=compute_device(working_bytes(rounding, statistics)),
                on_progress=progress_bar(),
            )
        return sensitivity_result(sensitivity, saved_sensitivity(sensitivity, save_as))


class LoadSensitivity(io.ComfyNode):
    """A sensitivity saved earlier."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryLoadSensitivity",
            display_name="Load Sensitivity",
            category=CATEGORY,
            description="Loads what Measure Sensitivity or Probe Result saved.",
            search_aliases=["nvfp4 sensitivity", "load sensitivity", "heat map"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=SENSITIVITIES.names(),
                    tooltip="A file in output/nvfp4_foundry/sensitivities.",
                )
            ],
            outputs=sensitivity_outputs(),
        )

    @classmethod
    def validate_inputs(cls, name: str | None) -> bool | str:
        """Say before the queue starts when the file is gone."""
        return SENSITIVITIES.check_saved(name)

    @classmethod
    def fingerprint_inputs(cls, name: str) -> float:
        """Load again when the file changed."""
        return SENSITIVITIES.modified(name)

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        """Load."""
        return sensitivity_result(load_sensitivity(SENSITIVITIES.path(name)), [])


def save_as_input() -> io.Input:
    """Return the input for a name to save a sensitivity under."""
    return io.String.Input(
        "save_as",
        default="",
        tooltip="Also save it under this name, for Load Sensitivity; a number is added if the "
        "name is taken. Empty: do not.",
    )


def sensitivity_outputs() -> list[io.Output]:
    """Return the outputs of every node that gives a sensitivity."""
    return [
        SensitivitySocket.Output(display_name="SENSITIVITY"),
        io.String.Output(display_name="report"),
        io.Image.Output(display_name="heat_map"),
    ]


def sensitivity_result(sensitivity: Sensitivity, notes: list[str]) -> io.NodeOutput:
    """Return a sensitivity with its report, after ``notes``, and its heat map."""
    text = "\n".join([*notes, describe_sensitivity(sensitivity)])
    picture = picture_tensor(draw_sensitivity(sensitivity, sensitivity.formats[0]))
    shown = {**ui.PreviewText(text).as_dict(), **ui.PreviewImage(picture).as_dict()}
    return io.NodeOutput(sensitivity, text, picture, ui=shown)


def saved_sensitivity(sensitivity: Sensitivity, name: str) -> list[str]:
    """Save a sensitivity unless the name is empty; returns what to say of it."""
    return SENSITIVITIES.save(
        name,
        lambda path: load_sensitivity(path) == sensitivity,
        lambda path: save_sensitivity(sensitivity, path),
    )
