"""ComfyUI takes quantized files of all models for what they were, and loads them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.comfyui.comfy_python import ComfyUI
from tests.comfyui.test_key_lists import LONG, NEWER
from tests.data import manifests
from tests.data.model_configs import DIFFUSION

SCRIPT = "detect_quantized.py"


def test_quantized_files_are_recognised_and_loaded(comfyui: ComfyUI, tmp_path: Path) -> None:
    """Whatever the recipe: presets, every Linear of the blocks, every Linear there is.

    The control quantizes matrices that are no Linear, and ComfyUI must have no use for them.
    """
    comfyui.run(SCRIPT, tmp_path / "result.json", timeout=LONG)
    result = json.loads((tmp_path / "result.json").read_text())
    control = result.pop("control")
    assert any("gate" in fault for faults in control.values() for fault in faults)
    vaes = {model for model in manifests.GENERATED if manifests.is_vae(model)}
    assert set(manifests.GENERATED) - set(result) - vaes in (set(), NEWER & set(DIFFUSION))
    assert {model: found for model, found in result.items() if found} == {}
