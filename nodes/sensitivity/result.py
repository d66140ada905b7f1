"""The outputs and the result that nodes with a sensitivity share."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...quant.reports.pictures.sensitivity import draw_sensitivity, picture_tensor
from ...quant.reports.sensitivity import describe_sensitivity
from ...quant.sensitivity.artefact import Sensitivity, load_sensitivity, save_sensitivity
from ..files.artefacts import SENSITIVITIES
from ..inputs.sockets import SensitivitySocket


def sensitivity_outputs() -> list[io.Output]:
    """Return the outputs of every node that outputs a sensitivity."""
    return [
        SensitivitySocket.Output(display_name="SENSITIVITY"),
        io.String.Output(display_name="report"),
        io.Image.Output(display_name="heat_map"),
    ]


def sensitivity_result(sensitivity: Sensitivity, notes: list[str]) -> io.NodeOutput:
    """Return a sensitivity, a report that begins with ``notes``, and a heat map."""
    text = "\n".join([*notes, describe_sensitivity(sensitivity)])
    picture = picture_tensor(draw_sensitivity(sensitivity, sensitivity.formats[0]))
    shown = {**ui.PreviewText(text).as_dict(), **ui.PreviewImage(picture).as_dict()}
    return io.NodeOutput(sensitivity, text, picture, ui=shown)


def saved_sensitivity(sensitivity: Sensitivity, name: str) -> list[str]:
    """Save a sensitivity unless the name is empty; return the lines for the report."""
    return SENSITIVITIES.save(
        name,
        lambda path: load_sensitivity(path) == sensitivity,
        lambda path: save_sensitivity(sensitivity, path),
    )
