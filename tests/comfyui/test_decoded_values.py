"""What ComfyUI decodes is the source within the bound of the format, and all else is the source.

The models have matrices that are no Linear (expert gates), shapes that the detection reads, or keys
that the loader rewrites. Quantized by other tools, such layers are hundreds of times off.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.comfyui.comfy_python import ComfyUI

MODELS = {"hidream-i1", "hunyuan3d-2.1", "stable-audio-3", "wan2.2-animate", "pixeldit"}
NEWER = {"trellis2"}
#: The rounding of each format leaves this much in random weights.
BOUNDS = {"all in float8": 0.03, "everything in float8": 0.03, "all in NVFP4": 0.1}


@pytest.fixture(scope="module")
def results(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``decoded_values.py``, run once in ComfyUI's own Python."""
    folder = tmp_path_factory.mktemp("decoded")
    comfyui.run("decoded_values.py", folder, timeout=900)
    return json.loads((folder / "result.json").read_text())


def test_models(results: dict[str, Any]) -> None:
    assert results.keys() - NEWER == MODELS


@pytest.mark.parametrize("recipe", BOUNDS)
def test_values(results: dict[str, Any], recipe: str) -> None:
    for model, by_recipe in results.items():
        found = by_recipe[recipe]
        assert found["quantized"] == found["planned"] > 10, model
        name, error = found["worst"]
        assert 0 < error < BOUNDS[recipe], (model, name)
        assert found["changed"] == [] and found["others"] > 10, model
