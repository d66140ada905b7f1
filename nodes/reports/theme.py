"""The theme of the page, for pictures that it shows."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...quant.files.json_file import read_json_object
from ...quant.reports.pictures.palette import ThemeName

_LIGHT = "light"


def page_theme() -> ThemeName:
    """Return the theme of the page of ComfyUI's default user; dark, as ComfyUI's own, if unknown.

    Palettes of users are dark unless they are named light.
    """
    path = Path(folder_paths.get_user_directory(), "default", "comfy.settings.json")
    palette = read_json_object(path).get("Comfy.ColorPalette")
    if palette is None:
        return "dark"
    return "light" if _LIGHT in str(palette).lower() else "dark"
