"""Pictures of every view, to be looked at, in the folder ``NVFP4_SCREENSHOTS``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Open

FOLDER = Path(os.environ.get("NVFP4_SCREENSHOTS", ""))
if not os.environ.get("NVFP4_SCREENSHOTS"):
    pytest.skip("no pictures: NVFP4_SCREENSHOTS names no folder", allow_module_level=True)


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("view", ["qwen", "flux", "wan", "mix", "calibration", "hostile", "text"])
@pytest.mark.parametrize("size", [(560, 720), (1400, 900)])
def test_pictures(open_view: Open, view: str, theme: str, size: tuple[int, int]) -> None:
    page = open_view(view, *size, query="light=1" if theme == "light" else "")
    FOLDER.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=FOLDER / f"{view}_{size[0]}_{theme}.png")
