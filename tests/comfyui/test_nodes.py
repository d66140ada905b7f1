"""The pack as ComfyUI lists and serves it: nodes, descriptions, web files."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from tests.comfyui.comfy_server import ROOT, ComfyServer
from tests.comfyui.english_locale import english_locale, inputs_of

#: Node by menu, in the order of the extension.
MENUS = {
    "Start": (
        "LoadSourceModel", "SelectPreset", "PlanLayers", "QuantizeModel", "SaveCheckpoint",
        "QuantizeFile",
    ),
    "Calibrate": ("CalibrationPrompts", "Calibrate", "CalibrationResult", "LoadCalibration"),
    "Measure": (
        "MeasureSensitivity", "ProbeLatentShift", "ProbeResult", "AutoMix", "CompareSamples",
    ),
    "Recipes": ("LoadRecipe", "EditRecipe", "SaveRecipe"),
    "Files": ("InspectCheckpoint", "RescaleCheckpoint"),
    "Interop": ("ImportActivationLog", "ExportInputScales", "MergeCalibrations"),
}  # fmt: skip
NODES = {f"NVFP4Foundry{name}": menu for menu, names in MENUS.items() for name in names}

#: What people type into the search, and the nodes they should find. The search looks at display
#: names and aliases.
WORDS = {
    "fp8": {"QuantizeModel", "QuantizeFile", "SelectPreset"},
    "int8": {"QuantizeModel", "QuantizeFile", "SelectPreset"},
    "fp4": {"QuantizeModel", "QuantizeFile", "SelectPreset"},
    "4-bit": {"QuantizeModel", "QuantizeFile", "SelectPreset"},
    "compress": {"QuantizeModel", "QuantizeFile"},
    "convert": {"QuantizeModel", "QuantizeFile"},
    "quantise": {"QuantizeModel", "QuantizeFile", "SelectPreset"},
    "quantize": {"QuantizeModel", "QuantizeFile", "SelectPreset", "PlanLayers"},
    "shrink": {"QuantizeModel", "QuantizeFile"},
    "calibrate": {"Calibrate"},
    "calibration": {"Calibrate", "CalibrationResult", "LoadCalibration", "CalibrationPrompts"},
    "gguf": {"LoadSourceModel", "LoadRecipe", "QuantizeFile"},
    "bake lora": {"QuantizeModel"},
    "merge lora": {"QuantizeModel"},
    "mixed precision": {"SelectPreset", "AutoMix"},
    "t5": {"PlanLayers", "QuantizeModel"},
    "model card": {"SaveCheckpoint"},
    "psnr": {"CompareSamples"},
}


@pytest.mark.parametrize("word", WORDS)
def test_the_words_people_use_find_the_right_node(server: ComfyServer, word: str) -> None:
    listed = server.get("/object_info")
    for name in WORDS[word]:
        node = listed[f"NVFP4Foundry{name}"]
        texts = [node["display_name"], *node["search_aliases"]]
        assert any(word in text.lower() for text in texts), name


def test_nodes_are_listed_and_the_log_has_no_warnings(server: ComfyServer) -> None:
    listed = server.get("/object_info")
    assert {name for name in listed if name.startswith("NVFP4Foundry")} == set(NODES)
    for name, menu in NODES.items():
        assert listed[name]["category"] == f"NVFP4 Foundry/{menu}"
        assert listed[name]["description"] and listed[name]["search_aliases"]
        assert (ROOT / "web" / "docs" / f"{name}.md").is_file()
    startup = server.log_text().split("To see the GUI")[0]
    assert not [ln for ln in startup.splitlines() if "WARNING" in ln or "ERROR" in ln]


def test_web_files_are_served(server: ComfyServer) -> None:
    (script,) = (path for path in server.get("/extensions") if path.endswith("/foundry.js"))
    base = f"http://127.0.0.1:{server.port}{script.removesuffix('foundry.js')}"
    for name in ("foundry.js", "view/mount.js", *(f"docs/{node}.md" for node in NODES)):
        with urllib.request.urlopen(base + name, timeout=30) as reply:
            assert reply.status == 200 and reply.read().strip()


def test_every_input_has_its_line_in_the_help(server: ComfyServer) -> None:
    listed = server.get("/object_info")
    for name in NODES:
        page = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for key, options in inputs_of(listed[name]):
            # inputs of a list that grows are numbered: one line is for all
            shown = options.get("display_name") or key.rpartition(".")[2].rstrip("0123456789")
            assert f"**{shown}" in page, f"{name}.{key}"


def test_every_input_has_a_tooltip(server: ComfyServer) -> None:
    listed = server.get("/object_info")
    for name in NODES:
        for key, options in inputs_of(listed[name]):
            assert options.get("tooltip"), f"{name}.{key}"


def test_help_has_the_title_of_the_node_and_no_picture_that_is_missing(server: ComfyServer) -> None:
    listed = server.get("/object_info")
    pages = {path.stem: path for path in (ROOT / "web" / "docs").glob("*.md")}
    assert set(pages) == set(NODES)
    for name, path in pages.items():
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {listed[name]['display_name']}\n")
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text):
            # The help panel puts '/extensions/<pack>/docs/' in front of a path without a leading
            # slash. So a picture beside the page is written as its bare file name.
            assert picture == f"{name}.webp" and path.with_name(picture).is_file(), name


def test_the_english_locale_is_that_of_the_nodes(server: ComfyServer) -> None:
    for name, content in english_locale(server.get("/object_info")).items():
        written = json.loads((ROOT / "locales" / "en" / name).read_text(encoding="utf-8"))
        assert written == content, "run: python -m tests.comfyui.english_locale"


def test_locales_are_served(server: ComfyServer) -> None:
    served = server.get("/i18n")
    for locale in ("en", "zh", "ja"):
        nodes = json.loads((ROOT / "locales" / locale / "nodeDefs.json").read_text("utf-8"))
        assert nodes.items() <= served[locale]["nodeDefs"].items()
        assert "NVFP4 Foundry" in served[locale]["nodeCategories"]
