"""The key lists are ComfyUI's, and quantized files of all models are what they were."""

from __future__ import annotations

import json
from pathlib import Path

from tests.comfyui.comfy_python import ComfyUI
from tests.data import manifests

DATA = Path(__file__).parents[1] / "data"
SCRIPT = "detect_quantized.py"
#: Classes that a ComfyUI may have beyond those of the oldest that the pack supports.
NEWER = {m for m in manifests.GENERATED if manifests.load_record(m).get("since") == "0.33"}
LONG = 1800


def test_lists_are_what_comfyui_builds(comfyui: ComfyUI, tmp_path: Path) -> None:
    comfyui.run(DATA / "generate_key_lists.py", tmp_path, timeout=LONG)
    made = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    committed = {path.name: path.read_text() for path in (DATA / "key_lists").glob("*.json")}
    missing = {name.removesuffix(".json") for name in committed.keys() - made.keys()}
    assert missing in (set(), NEWER)
    assert made == {name: committed[name] for name in made}


def test_quantized_files_are_recognised_and_loaded(comfyui: ComfyUI, tmp_path: Path) -> None:
    """Whatever the recipe: presets, every Linear of the blocks, every Linear there is.

    The control quantizes matrices that are no Linear, and ComfyUI must have no use for them.
    """
    comfyui.run(SCRIPT, tmp_path / "result.json", timeout=LONG)
    result = json.loads((tmp_path / "result.json").read_text())
    control = result.pop("control")
    assert any("gate" in fault for faults in control.values() for fault in faults)
    assert set(manifests.GENERATED) - set(result) in (set(), NEWER)
    assert {model: found for model, found in result.items() if found} == {}
