"""Errors in the browser: the message in the node that failed, and a button that helps."""

from __future__ import annotations

from typing import Any

from comfy_execution.utils import get_executing_context
from server import PromptServer

from ...quant.errors import FoundryError, Remedy

EVENT = "nvfp4_foundry.error"
_THIS_NODE = ""
#: By what a remedy changes: the class of the node and the name of its widget.
_WIDGETS = {
    "preset": ("NVFP4FoundrySelectPreset", "preset"),
    "accumulate": ("NVFP4FoundryCalibrate", "accumulate"),
    "any_architecture": (_THIS_NODE, "any_architecture"),
    "if_exists": (_THIS_NODE, "if_exists"),
    "file_name": (_THIS_NODE, "file_name"),
    "encoder": (_THIS_NODE, "encoder"),
    "name": (_THIS_NODE, "name"),
    "calibration": ("NVFP4FoundryLoadCalibration", "name"),
}


def report_error(error: Exception) -> None:
    """Send an error of the running node to the page."""
    _send(str(error), error.remedy if isinstance(error, FoundryError) else None)


def refused(message: str, remedy: Remedy | None = None) -> str:
    """Send why the inputs of a node are refused to the page, and return it."""
    _send(message, remedy)
    return message


def refused_if_invalid(valid: bool | str) -> bool | str:
    """Return the answer of ``validate_inputs``, after sending a refusal to the page."""
    return refused(valid) if isinstance(valid, str) else valid


def _send(message: str, remedy: Remedy | None) -> None:
    context = get_executing_context()
    server = getattr(PromptServer, "instance", None)
    if context is None or server is None:
        return
    data = {"node": context.node_id, "message": message, "remedy": _as_button(remedy)}
    server.send_sync(EVENT, data)


def _as_button(remedy: Remedy | None) -> dict[str, Any] | None:
    if remedy is None or remedy.setting not in _WIDGETS:
        return None
    node, widget = _WIDGETS[remedy.setting]
    return {"label": remedy.label, "node": node, "widget": widget, "value": remedy.value}
