"""Foreign sources are read as ComfyUI reads them, where it does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.comfyui.comfy_python import ComfyUI

SCRIPT = "foreign_sources.py"
#: How many tensors ComfyUI's own conversion leaves out: of Flux.2, it knows the blocks only.
UNKNOWN_TO_COMFYUI = {"Flux.1 dev": 0, "Flux.1 schnell": 0, "Flux.2": 7, "Z-Image": 0}


@pytest.fixture(scope="module")
def read(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``foreign_sources.py``, run once in ComfyUI's own Python."""
    result = tmp_path_factory.mktemp("foreign") / "result.json"
    comfyui.run(SCRIPT, result)
    return json.loads(result.read_text())


@pytest.mark.parametrize("kind", UNKNOWN_TO_COMFYUI)
def test_models_of_diffusers_are_put_together_as_comfyui_does(
    read: dict[str, Any], kind: str
) -> None:
    found = read["diffusers"][kind]
    assert found["different"] == []
    assert found["all"] - found["compared"] == UNKNOWN_TO_COMFYUI[kind]


def test_inputs_are_scaled_in_the_same_direction(read: dict[str, Any]) -> None:
    """ComfyUI 0.29 ignores the vector."""
    error = read["pre_quant_scale"]
    if error is None:
        pytest.skip("this ComfyUI does not know pre_quant_scale")
    assert error < 1e-5
