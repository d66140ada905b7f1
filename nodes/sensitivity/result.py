"""The outputs and the result that nodes with a sensitivity share."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.reports.pictures.sensitivity import draw_sensitivity, picture_tensor
from ...quant.reports.view import sensitivity_view
from ...quant.sensitivity.artefact import Sensitivity, load_sensitivity, save_sensitivity
from ..files.artefacts import SENSITIVITIES
from ..inputs.sockets import SensitivitySocket
from ..reports.shown import shown
from ..reports.theme import page_theme


def sensitivity_outputs() -> list[io.Output]:
    """Return the outputs of every node that outputs a sensitivity."""
    return [
        SensitivitySocket.Output(display_name="SENSITIVITY"),
        io.String.Output(display_name="report"),
        io.Image.Output(display_name="heat_map"),
    ]


def sensitivity_result(sensitivity: Sensitivity, notes: list[str]) -> io.NodeOutput:
    """Return a sensitivity, a report that begins with ``notes``, and a heat map."""
    view = sensitivity_view(sensitivity, notes)
    picture = picture_tensor(draw_sensitivity(sensitivity, sensitivity.formats[0], page_theme()))
    # the page draws the map itself; the picture is for other nodes
    return io.NodeOutput(sensitivity, view.text, picture, ui=shown(view))


def saved_sensitivity(sensitivity: Sensitivity, name: str) -> list[str]:
    """Save a sensitivity unless the name is empty; return the lines for the report."""
    return SENSITIVITIES.save(
        name,
        lambda path: load_sensitivity(path) == sensitivity,
        lambda path: save_sensitivity(sensitivity, path),
    )
