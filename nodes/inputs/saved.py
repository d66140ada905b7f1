"""The input that names something the pack saved."""

from __future__ import annotations

from comfy_api.latest import io

from ..files.artefacts import ArtefactFolder


def saved_input(folder: ArtefactFolder) -> io.Input:
    """Return the input that chooses one of the saved files of a kind."""
    return io.Combo.Input(
        "name",
        options=folder.names(),
        tooltip=f"A file in output/nvfp4_foundry/{folder.folder}.",
    )
