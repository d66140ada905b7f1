"""The input for a name to save a result under."""

from __future__ import annotations

from comfy_api.latest import io


def save_as_input(kind: str, loader: str) -> io.Input:
    """Return the input for the name of a saved ``kind``, which the node ``loader`` loads."""
    return io.String.Input(
        "save_as",
        default="",
        tooltip=f"Also save the {kind} under this name, for {loader}. If the name is taken, a "
        "number is added. Leave it empty to skip saving.",
    )
