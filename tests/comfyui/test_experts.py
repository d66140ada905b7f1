"""A tiny HiDream in a real ComfyUI: gates that are no Linear layers, experts without tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.comfyui.comfy_python import ComfyUI

#: What a weight may lose in a format, and how far the sample may move.
BOUNDS = {"nvfp4": 0.1, "float8_e4m3fn": 0.03}
DEAD = ".experts.4."


@pytest.fixture(scope="module")
def results(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``quantize_experts.py``, run once in ComfyUI's own Python."""
    folder = tmp_path_factory.mktemp("experts")
    comfyui.run("quantize_experts.py", folder)
    return json.loads((folder / "result.json").read_text())


def test_the_modules_of_a_model_say_what_a_gate_is(results: dict[str, Any]) -> None:
    found = results["presets"]
    gates = {kind for name, kind in found["kinds"].items() if name.endswith("gate")}
    assert found["finite"] and gates == {"parameter"}


@pytest.mark.parametrize("preset", ["all", "smart"])
def test_weights_and_samples_stay_near(results: dict[str, Any], preset: str) -> None:
    found = results["presets"][preset]
    assert found["problems"] == []
    for name, error in found["errors"].items():
        fmt = found["planned"].get(name, "")
        assert error <= BOUNDS.get(fmt.removesuffix("_w4a16"), 0.0), (name, fmt, error)
    # both lists have one block here, an edge block, which smart keeps in 8 bits
    assert ("nvfp4" if preset == "all" else "float8_e4m3fn") in found["planned"].values()
    assert 0 < found["moved"] < 0.05


@pytest.mark.parametrize("preset", ["all", "smart"])
def test_graph_and_file_give_the_same(results: dict[str, Any], preset: str) -> None:
    found = results["presets"][preset]
    assert found["same"] and found["preview"] == found["moved"]
    # the modules of a quantized checkpoint tell its layers too
    assert found["of_a_quantized_model"].keys() == found["planned"].keys()
    assert not any(name.endswith("gate") for name in found["planned"])


def test_rules_for_a_gate_are_refused_by_name(results: dict[str, Any]) -> None:
    assert len(results["rules"]) == 8
    for refusal in results["rules"]:
        assert "double_stream_blocks.0.block.ff_i.gate" in refusal and "kind" in refusal


def test_experts_without_a_scale_run_where_nvfp4_is_native(results: dict[str, Any]) -> None:
    found = results["idle"]["nvfp4"]
    assert set(found["formats"].values()) == {"nvfp4_w4a16"} and len(found["formats"]) == 30
    assert all("fails if the expert gets no tokens" in why for why in found["reasons"].values())
    assert "30 layers of experts get nvfp4_w4a16 instead of nvfp4" in found["warnings"][0]
    assert found["native"] == found["moved"] and 0 < found["moved"] < 0.05
    assert "numel() == 0" in results["idle"]["fails"]  # what the plan would have done


def test_calibrated_experts_keep_nvfp4(results: dict[str, Any]) -> None:
    found = results["idle"]["nvfp4 calibrated"]
    dead = {name for name in found["formats"] if DEAD in name}
    assert len(dead) == 6
    for name, fmt in found["formats"].items():
        assert fmt == ("nvfp4_w4a16" if name in dead else "nvfp4")


def test_integers_are_kept_from_experts(results: dict[str, Any]) -> None:
    found = results["idle"]["int8_rowwise"]
    assert set(found["formats"].values()) == {"float8_e4m3fn_w8a16"}
    assert found["native"] == found["moved"] and 0 < found["moved"] < 0.02
