"""The pack adds little to the start of ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path

from tests.comfyui.comfy_python import ComfyUI

# A quiet machine takes 0.15 s; a busy one must not fail for its own sake.
MOST_SECONDS = 0.6


def test_start_up(comfyui: ComfyUI, tmp_path: Path) -> None:
    """From the second start on, when Python has compiled the modules, it takes little time.

    No library is imported that ComfyUI has not imported itself, but for small ones.
    """
    for _ in range(2):
        comfyui.run("start_up.py", tmp_path / "result.json", tmp_path / "compiled")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["nodes"] > 20
    assert set(result["packages"]) <= {"nvfp4_foundry", "regex", "xxhash"}
    assert result["seconds"] < MOST_SECONDS
