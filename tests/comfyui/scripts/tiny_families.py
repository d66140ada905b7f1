"""Small random models of every family, built by ComfyUI's own code: the keys are the real ones."""

from __future__ import annotations

from typing import Any

import tiny_flux
import tiny_images
import tiny_shapes
import tiny_unets
import tiny_videos
import tiny_wan
from tiny_family import Family as Family

FAMILIES = {
    **tiny_flux.FAMILIES,
    **tiny_images.FAMILIES,
    **tiny_shapes.FAMILIES,
    **tiny_unets.FAMILIES,
    **tiny_videos.FAMILIES,
    **tiny_wan.FAMILIES,
}


def small_settings(preset: Any) -> dict[str, int]:
    """Return settings of a preset for so few blocks: one at each end is an edge."""
    names = {setting.name for setting in preset.settings}
    return {"edge_blocks": 1} if "edge_blocks" in names else {}
