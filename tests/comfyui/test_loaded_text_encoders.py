"""Tiny text encoders of all families that ComfyUI loads quantized, in ComfyUI's own classes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.comfyui.comfy_python import ComfyUI

FAMILIES = (
    "qwen2.5", "qwen3", "qwen3 with a head", "qwen3-vl", "qwen3.5", "gemma2", "gemma3", "gemma4",
    "mistral3", "llama3",
)  # fmt: skip
#: What a weight may lose, by ComfyUI's name of the format.
BOUNDS = {"none": 0.0, "nvfp4": 0.1, "float8_e4m3fn": 0.03, "mxfp8": 0.03, "int8_tensorwise": 0.02}
BANKS = ("nvfp4", "float8_e4m3fn", "mxfp8", "int8_rowwise", "int8_tensorwise")


@pytest.fixture(scope="module")
def results(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``load_text_encoders.py``, run once in ComfyUI's own Python."""
    folder = tmp_path_factory.mktemp("loaded")
    comfyui.run("load_text_encoders.py", folder)
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("preset", ["all", "auto"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_decodes_in_comfyui(results: dict[str, Any], family: str, preset: str) -> None:
    found = results[family][preset]
    assert (found["exit_code"], found["problems"]) == (0, [])
    assert "nvfp4" in found["errors"]
    assert all(error <= BOUNDS[fmt] for fmt, error in found["errors"].items())


@pytest.mark.parametrize("preset", ["all", "auto"])
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_become_what_the_decoded_weights_make_of_them(
    results: dict[str, Any], family: str, preset: str
) -> None:
    found = results[family][preset]
    assert found["finite"] and found["moved"] > 0
    assert found["off"] < 1e-5


@pytest.mark.parametrize("fmt", BANKS)
def test_banks_of_experts(results: dict[str, Any], fmt: str) -> None:
    """GPT-OSS of Lens, through stock ComfyUI's loader."""
    found = results["lens"][fmt]
    assert results["lens"]["finite"]
    assert (found["exit_code"], found["problems"]) == (0, [])
    assert all(error <= BOUNDS[loaded] for loaded, error in found["errors"].items())
    assert 0 < found["moved"] < 0.3
    # ComfyUI decodes to 16 bits, so a token near the border may go to another expert
    assert found["off"] < 0.05
    assert found["kept_as"] == fmt
    assert 0 < found["decoded"] < BOUNDS.get(fmt, BOUNDS["int8_tensorwise"])
