"""The theme of the page, for pictures that it shows."""

from __future__ import annotations

import json
from pathlib import Path

import folder_paths

from ...quant.reports.pictures.palette import ThemeName

_LIGHT = "light"


def page_theme() -> ThemeName:
    """Return the theme of the page of ComfyUI's default user; dark, as ComfyUI's own, if unknown.

    Palettes of users are dark unless they are named light.
    """
    path = Path(folder_paths.get_user_directory(), "default", "comfy.settings.json")
    try:
        palette = str(json.loads(path.read_text(encoding="utf-8")).get("Comfy.ColorPalette", ""))
    except (OSError, ValueError, AttributeError):
        return "dark"
    return "light" if _LIGHT in palette.lower() else "dark"
