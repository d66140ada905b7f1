"""A tiny random model of every family that has one: quantized by presets, loaded, sampled.

Each is built, recognised and loaded by stock ComfyUI. Where ComfyUI knows a family at one width
only, the test tells it smaller sizes once it has recognised the file (`Family.sizes`); all else is
as for the real model.

On a CPU, ComfyUI multiplies in full precision. So a quantized file must sample what the unquantized
model does that is given the weights which the pack says are in the file.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.comfyui.comfy_python import ComfyUI, comfyui_path
from tests.comfyui.family_table import FAMILIES, SINCE, SPLIT, known_families

SCRIPT = "sample_families.py"
KNOWN = known_families(path) if (path := comfyui_path()) else list(FAMILIES)
# Of the weights of a layer: NVFP4 has 16 values, float8 three bits of mantissa.
LARGEST_ERROR = {"nvfp4": 0.12, "nvfp4_w4a16": 0.12, "float8_e4m3fn": 0.04}
# Of the samples, relative to the unquantized ones; three blocks of random weights have no slack.
LARGEST_MOVE = 0.25


@pytest.fixture(scope="module")
def results(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``sample_families.py``, run once in ComfyUI's own Python."""
    folder = tmp_path_factory.mktemp("families")
    comfyui.run(SCRIPT, folder, *KNOWN, timeout=580)
    return json.loads((folder / "result.json").read_text())


@pytest.fixture
def found(results: dict[str, Any], family: str) -> dict[str, Any]:
    """What became of one family."""
    assert "failed" not in results[family], results[family]["failed"]
    return results[family]


def test_only_families_of_newer_comfyui_are_left_out(results: dict[str, Any]) -> None:
    assert results.keys() >= FAMILIES.keys() - SINCE.keys()
    assert len(results) >= 40


@pytest.mark.parametrize("family", KNOWN)
def test_recognised_before_and_after(found: dict[str, Any], family: str) -> None:
    auto, _ = found["presets"]
    assert (found["class"], auto["preset"]) == FAMILIES[family]
    assert {preset["class"] for preset in found["presets"]} == {found["class"]}


@pytest.mark.parametrize("family", KNOWN)
def test_a_model_in_the_graph_has_the_names_of_its_file(found: dict[str, Any], family: str) -> None:
    assert found["same_names"] == (family not in SPLIT)


@pytest.mark.parametrize("family", KNOWN)
def test_the_pack_and_comfyui_take_the_same_layers_for_linear(
    found: dict[str, Any], family: str
) -> None:
    """The names in the file decide, without a look at ComfyUI's modules."""
    assert [name for name in found["other_kinds"] if not is_of_split(name, family)] == []


def is_of_split(layer: str, family: str) -> bool:
    """Whether ComfyUI has made a layer as it loaded the file, by splitting another."""
    return any(part in layer for part in SPLIT.get(family, ()))


@pytest.mark.parametrize("family", KNOWN)
def test_comfyui_misses_no_tensor_and_knows_each(found: dict[str, Any]) -> None:
    assert found["complaints"] == []


@pytest.mark.parametrize("family", KNOWN)
def test_layers_have_the_planned_formats(found: dict[str, Any]) -> None:
    for preset in found["presets"]:
        assert preset["loaded"] == preset["planned"] != {}
        assert preset["size"] < found["size"]


@pytest.mark.parametrize("family", KNOWN)
def test_comfyui_decodes_the_weights_that_were_meant(found: dict[str, Any]) -> None:
    for preset in found["presets"]:
        assert preset["decoded"] < 1e-6
        for layer, fmt in preset["planned"].items():
            assert 0 < preset["errors"][layer] < LARGEST_ERROR[fmt], layer


@pytest.mark.parametrize("family", KNOWN)
def test_samples_are_those_of_the_decoded_weights(found: dict[str, Any]) -> None:
    assert found["std"] > 0.1
    for preset in found["presets"]:
        assert preset["apart"] < 1e-5
        assert 0 < preset["moved"] < LARGEST_MOVE
