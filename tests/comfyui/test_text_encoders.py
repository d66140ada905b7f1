"""Text encoders, quantized through the CLIP socket and as files, and loaded by stock ComfyUI.

The real ones are too large for a test: these have their keys, depths and names at other widths.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_python import ComfyUI
from tests.comfyui.comfy_server import ComfyServer, RejectedError

SCRIPT = "quantize_text_encoders.py"
ENCODERS = {"t5-xxl": "t5-xxl", "qwen2.5-vl": "qwen2.5"}


@pytest.fixture(scope="module")
def results(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``quantize_text_encoders.py``, run once in ComfyUI's own Python."""
    folder = tmp_path_factory.mktemp("text_encoders")
    comfyui.run(SCRIPT, folder)
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_stock_comfyui_loads_what_was_planned(results: dict[str, Any], encoder: str) -> None:
    found = results[encoder]
    assert found["architecture"] == ENCODERS[encoder] and found["warnings"] == []
    assert found["loaded"] == found["planned"]
    assert set(found["planned"].values()) == {"nvfp4_w4a16", "float8_e4m3fn"}
    assert found["finite"] and 0 < found["moved"] < 0.3


@pytest.mark.parametrize("encoder", ENCODERS)
def test_socket_and_file_give_the_same(results: dict[str, Any], encoder: str) -> None:
    found = results[encoder]
    assert found["read_from"] and found["exit_code"] == 0 and found["same"]
    assert found["preview"] == 0.0
    assert f"recipe  {encoder}" in found["table"] and "= nvfp4_w4a16" in found["table"]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_nothing_asks_for_a_calibration(results: dict[str, Any], encoder: str) -> None:
    assert "Calibrate" not in results[encoder]["report"]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_quantized_clip_is_a_source(results: dict[str, Any], encoder: str) -> None:
    assert results[encoder]["taken_over"]


def test_one_encoder_of_two_with_its_lora(results: dict[str, Any]) -> None:
    found = results["pair"]
    assert found["largest"] == "clip_l"
    assert found["merged"] < 1e-6
    assert any("1 tensors have LoRAs" in note for note in found["notes"])
    assert found["quantized"] and found["finite"]
    no_clip, no_llama = found["errors"]
    assert "does not load quantized CLIP" in no_clip
    assert "no text encoder 'llama'; it has clip_l, t5xxl" in no_llama


def test_a_clip_of_a_full_checkpoint_is_quantized_but_not_shown(results: dict[str, Any]) -> None:
    found = results["without files"]
    assert found["from_memory"] and "save the checkpoint to text_encoders" in found["blocked"]
    assert found["problems"] == [] and found["all_loaded"] and found["same_weights"]


def test_nodes_offer_text_encoders(server: ComfyServer) -> None:
    info = server.get("/object_info/NVFP4FoundrySaveCheckpoint")["NVFP4FoundrySaveCheckpoint"]
    assert "text_encoders" in info["input"]["required"]["folder"][1]["options"]
    node = server.get("/object_info/NVFP4FoundryPlanLayers")["NVFP4FoundryPlanLayers"]
    assert node["input"]["required"]["model"][0] == "MODEL,CLIP"
    workflow = wf.quantize_file()
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile").update(
        model_file="text_encoders/absent.safetensors", folder="text_encoders"
    )
    with pytest.raises(RejectedError, match=r"absent\.safetensors"):
        server.run(workflow)
