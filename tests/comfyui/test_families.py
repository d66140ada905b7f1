"""A tiny random model of every family that has one: quantized by its preset, loaded, sampled.

ComfyUI reads most sizes off the shapes. Families it knows at one width only are too large for a
test: Chroma and Chroma Radiance (3072, with a guidance network of 5120), Z-Image (3840), Lumina 2
(2304), Qwen-Image (3072), SeedVR2 (2560 and 3072). Of these the key lists are tested, and that
ComfyUI recognises their quantized files (``test_key_lists.py``).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.comfyui.comfy_python import ComfyUI
from tests.comfyui.family_table import FAMILIES

SCRIPT = "sample_families.py"


@pytest.fixture(scope="module")
def results(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``sample_families.py``, run once in ComfyUI's own Python."""
    folder = tmp_path_factory.mktemp("families")
    comfyui.run(SCRIPT, folder)
    return json.loads((folder / "result.json").read_text())


def test_every_family_is_tried(results: dict[str, Any]) -> None:
    assert results.keys() == FAMILIES.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_recognised_before_and_after(results: dict[str, Any], family: str) -> None:
    found = results[family]
    assert (found["class"], found["preset"]) == FAMILIES[family]
    assert found["quantized_class"] == found["class"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_in_the_graph_has_the_names_of_its_file(
    results: dict[str, Any], family: str
) -> None:
    assert results[family]["same_names"]


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_have_the_planned_formats(results: dict[str, Any], family: str) -> None:
    found = results[family]
    assert found["warnings"] == []
    assert found["loaded"] == found["planned"]
    assert {"nvfp4", "float8_e4m3fn"} <= set(found["planned"].values())
    before, after = found["sizes"]
    assert after < before


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_stay_near(results: dict[str, Any], family: str) -> None:
    found = results[family]
    assert found["finite"] and found["std"] > 0.1
    assert 0 < found["moved"] < 0.1
