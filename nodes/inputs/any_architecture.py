"""The input that allows a preset on a model it was not written for."""

from __future__ import annotations

from comfy_api.latest import io


def any_architecture_input() -> io.Input:
    """Return the switch, which is off by default."""
    return io.Boolean.Input(
        "any_architecture",
        default=False,
        advanced=True,
        tooltip="Use the preset even on a model that it was not written for.",
    )
