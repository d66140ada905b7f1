"""The key lists are what ComfyUI builds."""

from __future__ import annotations

from pathlib import Path

from tests.comfyui.comfy_python import ComfyUI
from tests.data import manifests

DATA = Path(__file__).parents[1] / "data"
#: Classes that a ComfyUI may have beyond those of the oldest that the pack supports.
NEWER = {m for m in manifests.GENERATED if manifests.load_record(m).get("since") == "0.33"}
LONG = 1800


def test_lists_are_what_comfyui_builds(comfyui: ComfyUI, tmp_path: Path) -> None:
    comfyui.run(DATA / "generate_key_lists.py", tmp_path, timeout=LONG)
    made = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    committed = {path.name: path.read_text() for path in (DATA / "key_lists").glob("*.json")}
    missing = {name.removesuffix(".json") for name in committed.keys() - made.keys()}
    assert missing in (set(), NEWER)
    assert made == {name: committed[name] for name in made}
