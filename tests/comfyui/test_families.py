"""A tiny random model of every family that has one: quantized by its preset, loaded, sampled.

ComfyUI reads most sizes off the shapes. Families it knows at one width only are too large for a
test: Chroma and Chroma Radiance (3072, with a guidance network of 5120), Z-Image (3840), Lumina 2
(2304), Qwen-Image (3072), SeedVR2 (2560 and 3072). Of these the key lists are tested, and that
ComfyUI recognises their quantized files (``test_key_lists.py``).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from comfy_server import ComfyUI

SCRIPT = Path(__file__).with_name("scripts") / "sample_families.py"
#: What ComfyUI takes each family for, and the preset that ``auto`` picks for it.
EXPECTED = {
    "flux1": ("Flux", "flux1"),
    "flux2": ("Flux2", "flux2"),
    "hunyuan-video": ("HunyuanVideo", "hunyuan-video"),
    "hunyuan-video-1.5": ("HunyuanVideo15", "hunyuan-video-1.5"),
    "ltxv": ("LTXV", "ltx-2"),
    "ltx-2": ("LTXAV", "ltx-2"),
    "sd1.5": ("BaseModel", "sd1.5"),
    "sdxl": ("SDXL", "sdxl"),
    "wan2.2-ti2v": ("WAN22", "wan2.2-ti2v-5b"),
}


@pytest.fixture(scope="module")
def results(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``sample_families.py``, run once in ComfyUI's own Python."""
    folder = tmp_path_factory.mktemp("families")
    run = subprocess.run(
        [comfyui.python, SCRIPT, folder],
        env={**os.environ, "PYTHONPATH": str(comfyui.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads((folder / "result.json").read_text())


def test_every_family_is_tried(results: dict[str, Any]) -> None:
    assert results.keys() == EXPECTED.keys()


@pytest.mark.parametrize("family", EXPECTED)
def test_recognised_before_and_after(results: dict[str, Any], family: str) -> None:
    found = results[family]
    assert (found["class"], found["preset"]) == EXPECTED[family]
    assert found["quantized_class"] == found["class"]


@pytest.mark.parametrize("family", EXPECTED)
def test_a_model_in_the_graph_has_the_names_of_its_file(
    results: dict[str, Any], family: str
) -> None:
    assert results[family]["same_names"]


@pytest.mark.parametrize("family", EXPECTED)
def test_layers_have_the_planned_formats(results: dict[str, Any], family: str) -> None:
    found = results[family]
    assert found["warnings"] == []
    assert found["loaded"] == found["planned"]
    assert {"nvfp4", "float8_e4m3fn"} <= set(found["planned"].values())
    before, after = found["sizes"]
    assert after < before


@pytest.mark.parametrize("family", EXPECTED)
def test_samples_stay_near(results: dict[str, Any], family: str) -> None:
    found = results[family]
    assert found["finite"] and found["std"] > 0.1
    assert 0 < found["moved"] < 0.1
