"""The key lists are ComfyUI's, and quantized files of these models are what they were."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from comfy_server import ComfyUI

DATA = Path(__file__).parents[1] / "data"
SCRIPT = Path(__file__).with_name("scripts") / "detect_quantized.py"


def run(comfyui: ComfyUI, script: Path, argument: Path) -> None:
    """Run a script in ComfyUI's Python."""
    done = subprocess.run(
        [comfyui.python, script, argument],
        env={**os.environ, "PYTHONPATH": str(comfyui.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_lists_are_what_comfyui_builds(comfyui: ComfyUI, tmp_path: Path) -> None:
    run(comfyui, DATA / "generate_key_lists.py", tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    committed = {path.name: path.read_text() for path in (DATA / "key_lists").glob("*.json")}
    assert made == committed


def test_quantized_files_are_recognised_as_before(comfyui: ComfyUI, tmp_path: Path) -> None:
    """Whatever the recipe: presets, every Linear of the blocks, every Linear there is."""
    run(comfyui, SCRIPT, tmp_path / "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result) >= 26
    assert {model: found for model, found in result.items() if found} == {}
