"""A small video VAE of MiniMax H3, the one VAE that ComfyUI loads quantized, since 0.33."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.comfyui.comfy_python import ComfyUI

#: Of each attempt: ComfyUI's name of the format, what a weight may lose, and the picture.
TRIED = {
    "auto": ("int8_tensorwise", 0.01, 0.02),
    "all": ("nvfp4", 0.1, 0.1),
    "float8": ("float8_e4m3fn", 0.03, 0.05),
}


@pytest.fixture(scope="module")
def results(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``load_minimax_vae.py``, run once in ComfyUI's own Python."""
    folder = tmp_path_factory.mktemp("vae")
    comfyui.run("load_minimax_vae.py", folder)
    found = json.loads((folder / "result.json").read_text())
    if found is None:
        pytest.skip("this ComfyUI does not know MiniMax H3")
    return found


@pytest.mark.parametrize("name", TRIED)
def test_the_decoder_loads_and_decodes(results: dict[str, Any], name: str) -> None:
    found, (fmt, bound, most) = results[name], TRIED[name]
    assert results["finite"] and results["std"] > 0.1
    assert (found["exit_code"], found["problems"]) == (0, [])
    quantized = {layer for layer, (loaded, _) in found["errors"].items() if loaded == fmt}
    kept = {layer: error for layer, (loaded, error) in found["errors"].items() if loaded == "none"}
    assert len(quantized) == 12
    assert kept == {"decoder.x_embedder": 0.0, "decoder.proj_out": 0.0}
    assert all(0 < found["errors"][layer][1] <= bound for layer in quantized)
    assert 0 < found["moved"] < most
    # the integer product rounds activations too
    assert found["off"] < (0.02 if fmt == "int8_tensorwise" else most)
