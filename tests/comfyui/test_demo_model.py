"""The demo model is a WAN to ComfyUI: same forward, same samples, digits from its own sampler."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.comfyui.comfy_python import ComfyUI

SCRIPT = "compare_tiny_wan.py"


@pytest.fixture(scope="module")
def comparison(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``compare_tiny_wan.py``, run once in ComfyUI's own Python."""
    result = tmp_path_factory.mktemp("comparison") / "result.json"
    comfyui.run(SCRIPT, result)
    return json.loads(result.read_text())


def test_detected_as_wan(comparison: dict[str, Any]) -> None:
    assert comparison["model_class"] == "WAN21"


def test_forward_equals_comfyui(comparison: dict[str, Any]) -> None:
    assert comparison["forward_float32"] <= 1e-5
    assert comparison["forward_float32_video"] <= 1e-5
    # bfloat16 rounds at every operation; only the order of roundings differs.
    assert comparison["forward_bfloat16"] <= 0.02


def test_sampling_equals_comfyui(comparison: dict[str, Any]) -> None:
    assert comparison["sampling"]["error"] <= 1e-4
    assert comparison["sampling"]["accuracy"] >= 0.95
