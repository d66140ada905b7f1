"""What nodes that give a sensitivity share."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...quant.reports.pictures.sensitivity import draw_sensitivity, picture_tensor
from ...quant.reports.sensitivity import describe_sensitivity
from ...quant.sensitivity.artefact import Sensitivity, load_sensitivity, save_sensitivity
from ..files.artefacts import SENSITIVITIES
from ..inputs.sockets import SensitivitySocket


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
