"""Every quantized format, loaded by stock ComfyUI: what it holds and what it computes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from nvfp4_foundry.quant.formats import FORMATS
from nvfp4_foundry.quant.hardware.comfyui import parse_version

from tests.comfyui.comfy_python import ComfyUI

SCRIPT = "loaded_formats.py"
# Relative error of the model's output on this CPU: 8-bit weights, and 4-bit ones with 4-bit inputs.
EIGHT_BITS = ("float8_e4m3fn", "float8_e4m3fn_w8a16", "float8_e5m2", "mxfp8")
INTEGERS = ("int8_tensorwise", "int8_rowwise", "int8_convrot")
FOUR_BITS = ("convrot_w4a4", "convrot_w4a8")
ASYM = "asym_w4a8_int8"
LARGEST_ERROR = {
    **dict.fromkeys((*EIGHT_BITS, *INTEGERS), 0.03),
    **dict.fromkeys(FOUR_BITS, 0.12),
    ASYM: 0.06,
}


@pytest.fixture(scope="module")
def loaded(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``loaded_formats.py``, run once in ComfyUI's own Python."""
    folder = tmp_path_factory.mktemp("formats")
    result = folder / "result.json"
    comfyui.run(SCRIPT, result, folder)
    return json.loads(result.read_text())


@pytest.fixture(params=sorted(LARGEST_ERROR))
def case(request: pytest.FixtureRequest, loaded: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A format and what was found of it."""
    if request.param in loaded["refused"]:
        pytest.skip(f"ComfyUI {loaded['version']} does not know {request.param}")
    return request.param, loaded["formats"][request.param]


def test_every_format_was_tried(loaded: dict[str, Any]) -> None:
    assert {*loaded["formats"], *loaded["refused"]} == set(LARGEST_ERROR)


def test_a_format_is_loaded_from_the_version_on_that_it_states(loaded: dict[str, Any]) -> None:
    """An older ComfyUI stops with the name of the format, so no file is silently wrong.

    Not so with factors per channel, see ``test_smooth.py``.
    """
    running = parse_version(loaded["version"])
    newer = {name for name, fmt in FORMATS.items() if (fmt.needs_comfyui or running) > running}
    newer -= {name for name, fmt in FORMATS.items() if fmt.has_channel_scale}
    assert set(loaded["refused"]) == newer
    assert all(name in said for name, said in loaded["refused"].items())


def test_every_layer_of_the_blocks_has_the_layout(case: tuple[str, dict[str, Any]]) -> None:
    _, found = case
    assert found["problems"] == []
    assert found["layouts"] == [found["wanted_layout"]]


def test_comfyui_decodes_the_same_weight(case: tuple[str, dict[str, Any]]) -> None:
    """Rotated ones it scales before it rotates them back, in float32."""
    name, found = case
    assert found["weight"] <= (1e-6 if "convrot" in name or name == ASYM else 0.0)
    assert found["weight_error"] < (0.2 if name in FOUR_BITS else 0.08)


def test_comfyuis_layout_quantizes_to_the_same_bits(case: tuple[str, dict[str, Any]]) -> None:
    assert case[1]["requantized"]


def test_the_product_is_that_of_decoded_weights_and_rounded_inputs(
    case: tuple[str, dict[str, Any]],
) -> None:
    """Integers are multiplied as integers on any device; floats without a GPU in 16 bits."""
    name, found = case
    assert found["full_precision"] == (name in EIGHT_BITS)
    if name == "convrot_w4a8":  # without a GPU comfy-kitchen rounds its inputs to 4 bits too
        assert 0.1 < found["product"] < 0.2
    else:
        assert found["product"] < 1e-6


def test_the_model_computes_nearly_what_it_did(case: tuple[str, dict[str, Any]]) -> None:
    name, found = case
    assert found["finite"]
    assert 1e-4 < found["output_error"] < LARGEST_ERROR[name]


def test_what_error_feedback_chose_is_what_comfyui_computes(loaded: dict[str, Any]) -> None:
    found = loaded["feedback"]
    assert set(found) == set(LARGEST_ERROR) - set(loaded["refused"])
    for name, differences in found.items():
        assert differences["weight"] < 1e-6, name
        if name != "convrot_w4a8":  # without a GPU comfy-kitchen rounds its inputs to 4 bits too
            assert differences["product"] < 1e-6, name
        assert differences["changed"] > (0.005 if name in INTEGERS else 0.02), name


def test_block_scales_of_mxfp8_are_plain_bytes(loaded: dict[str, Any]) -> None:
    """ComfyUI's reader for machines with dynamic VRAM has no type E8M0."""
    assert loaded["formats"]["mxfp8"]["scale_dtype"] == "torch.uint8"


def test_embeddings_look_up_what_was_stored(loaded: dict[str, Any]) -> None:
    found = loaded["embeddings"]
    assert set(found) == {*EIGHT_BITS, *INTEGERS} - {"mxfp8"}
    assert max(found.values()) < 1e-6
