"""Factors per channel (``nvfp4_smooth``) as ComfyUI 0.33 loads and computes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from nvfp4_foundry.quant.hardware.comfyui import parse_version

from tests.comfyui.comfy_python import ComfyUI

SCRIPT = "smooth_layers.py"


@pytest.fixture(scope="module")
def results(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``smooth_layers.py``, run once in ComfyUI's own Python."""
    folder = tmp_path_factory.mktemp("smooth")
    comfyui.run(SCRIPT, folder / "result.json", folder)
    return json.loads((folder / "result.json").read_text())


@pytest.fixture
def loaded(results: dict[str, Any]) -> dict[str, Any]:
    """What ComfyUI holds and computes of the file."""
    if not results["known"]:
        pytest.skip(f"ComfyUI {results['version']} IGNORES pre_quant_scale, so no file is for it")
    return results["loaded"]


def test_the_version_that_knows_factors_is_the_one_that_the_pack_asks_for(
    results: dict[str, Any],
) -> None:
    assert results["known"] is (parse_version(results["version"]) >= (0, 33))
    assert results["needs"] == "0.33"


def test_an_older_comfyui_is_refused_before_any_work(results: dict[str, Any]) -> None:
    """It would load the file and ignore the factors."""
    assert "ComfyUI 0.29 must load" in results["refusal"]
    assert "--comfyui 0.33" in results["refusal"]


def test_the_file_is_sound_and_has_factors(results: dict[str, Any]) -> None:
    assert results["problems"] == []
    assert results["smoothed"] >= 8


def test_comfyui_holds_the_same_factors_and_weights(loaded: dict[str, Any]) -> None:
    least, largest = loaded["factors"]
    assert least < 0.5 < 1.0 < largest
    assert loaded["loaded"] and loaded["weight"] < 1e-6


def test_comfyui_multiplies_the_input_by_the_factors(loaded: dict[str, Any]) -> None:
    assert loaded["product"] < 1e-6


def test_the_native_product_is_what_the_pack_emulates(loaded: dict[str, Any]) -> None:
    """Also by hooks, whose result ComfyUI multiplies by the factors again."""
    assert loaded["native"] < 1e-6 and loaded["hooked"] < 1e-6
    assert 0.005 < loaded["rounding"] < 0.2


def test_the_input_scale_is_for_the_multiplied_input(loaded: dict[str, Any]) -> None:
    """With a headroom of four."""
    assert 0.1 < loaded["clipped"] < 0.5


def test_a_lora_is_right_beside_the_layer_and_wrong_in_its_weight(loaded: dict[str, Any]) -> None:
    """As the report advises."""
    assert loaded["bypass"] < 1e-4
    assert loaded["added"] > 0.3
