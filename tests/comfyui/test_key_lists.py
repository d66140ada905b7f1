"""The key lists are ComfyUI's, and quantized files of these models are what they were."""

from __future__ import annotations

import json
from pathlib import Path

from tests.comfyui.comfy_python import ComfyUI

DATA = Path(__file__).parents[1] / "data"
SCRIPT = "detect_quantized.py"


def test_lists_are_what_comfyui_builds(comfyui: ComfyUI, tmp_path: Path) -> None:
    comfyui.run(DATA / "generate_key_lists.py", tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    committed = {path.name: path.read_text() for path in (DATA / "key_lists").glob("*.json")}
    assert made == committed


def test_quantized_files_are_recognised_as_before(comfyui: ComfyUI, tmp_path: Path) -> None:
    """Whatever the recipe: presets, every Linear of the blocks, every Linear there is."""
    comfyui.run(SCRIPT, tmp_path / "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result) >= 26
    assert {model: found for model, found in result.items() if found} == {}
