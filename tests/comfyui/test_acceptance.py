"""Whatever people bring, of whatever family: planned, written, loaded by stock ComfyUI, sampled.

Each cell of the table takes one kind of source of one tiny random model all the way. Two families
are tried with every kind, others with the kinds that people have most often.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.comfyui.comfy_python import ComfyUI
from tests.comfyui.family_table import FAMILIES
from tests.helpers.source_kinds import SOURCE_KINDS

SCRIPT = "accept_sources.py"
WITH_EVERY_KIND = ("wan2.2-ti2v", "flux1")
WITH_COMMON_KINDS = (
    "flux2", "hunyuan-video", "hunyuan-video-1.5", "ltxv", "ltx-2", "sd1.5", "sdxl"
)  # fmt: skip
COMMON = ("scaled fp8", "GGUF")
CELLS = [
    *((kind, family) for family in WITH_EVERY_KIND for kind in SOURCE_KINDS),
    ("diffusers names", "wan2.2-ti2v"),
    *((kind, family) for family in WITH_COMMON_KINDS for kind in COMMON),
]
# The tiny LTX-2 tells its sizes in the file's metadata, which a GGUF does not have.
CELLS.remove(("GGUF", "ltx-2"))
# Relative to the unquantized model's sample. What the source lost already is part of it.
LARGEST_MOVE = 0.15


@pytest.fixture(scope="module")
def results(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """What became of each cell; all in one run of ComfyUI's own Python."""
    folder = tmp_path_factory.mktemp("acceptance")
    comfyui.run(SCRIPT, folder, json.dumps(CELLS), timeout=580)
    return dict(zip(CELLS, json.loads((folder / "result.json").read_text()), strict=True))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: " of ".join(cell))
def test_accepted(results: dict[Any, Any], cell: tuple[str, str]) -> None:
    found, (_, family) = results[cell], cell
    assert (found["class"], found["preset"]) == FAMILIES[family]
    assert found["problems"] == []
    assert found["loaded"] == found["planned"]
    assert "nvfp4" in found["planned"].values()
    assert found["finite"] and 0 < found["moved"] < LARGEST_MOVE
