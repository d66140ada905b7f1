"""No file is silently wrong: numbers of what stock ComfyUI computes with, or a refusal by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.comfyui.comfy_python import ComfyUI
from tests.helpers.brought_cases import CASES

# NVFP4 by the usual rounding leaves 9% in a weight; a source that is NVFP4 already adds as much.
WEIGHT, OUTPUT = 0.15, 0.12


@pytest.fixture(scope="module")
def results(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``brought_cases.py``, run once in ComfyUI's own Python."""
    folder = tmp_path_factory.mktemp("brought")
    comfyui.run("brought_cases.py", folder)
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused(results: dict[str, Any], name: str) -> None:
    case, found = CASES[name], results[name]
    if "refused" in found:
        assert case.refusal, found["refused"]
        assert all(word in found["refused"] for word in case.refusal), found["refused"]
        assert found["path"] in found["refused"]
        assert not found["left"]
        return
    assert case.either or not case.refusal, "should be refused"
    assert found["lacks"] == [] and found["problems"] == []
    assert found["quantized"] > 0
    assert max(found["errors"].values()) < WEIGHT, max(found["errors"].items(), key=lambda e: e[1])
    assert found["output"] < OUTPUT
