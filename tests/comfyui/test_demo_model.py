"""The demo model is a WAN to ComfyUI: same forward, same samples, digits from its own sampler."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from comfy_server import ComfyUI

SCRIPT = Path(__file__).with_name("scripts") / "compare_tiny_wan.py"


@pytest.fixture(scope="module")
def comparison(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``compare_tiny_wan.py``, run once in ComfyUI's own Python."""
    result = tmp_path_factory.mktemp("comparison") / "result.json"
    run = subprocess.run(
        [comfyui.python, SCRIPT, result],
        env={**os.environ, "PYTHONPATH": str(comfyui.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
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
