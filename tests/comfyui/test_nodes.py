"""The pack as ComfyUI lists and serves it: nodes, descriptions, web files."""

from __future__ import annotations

import urllib.request

from tests.comfyui.comfy_server import ROOT, ComfyServer

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
    (script,) = (path for path in server.get("/extensions") if path.endswith("/reports.js"))
    base = f"http://127.0.0.1:{server.port}{script.removesuffix('reports.js')}"
    for name in ("reports.js", *(f"docs/{node}.md" for node in NODES)):
        with urllib.request.urlopen(base + name, timeout=30) as reply:
            assert reply.status == 200 and reply.read().strip()


def test_every_input_has_its_line_in_the_help(server: ComfyServer) -> None:
    listed = server.get("/object_info")
    for name in NODES:
        page = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for group in ("required", "optional"):
            for key, spec in listed[name]["input"].get(group, {}).items():
                shown = (spec[1] if len(spec) > 1 else {}).get("display_name") or key
                # the switches of Auto Mix have one line together
                assert f"**{shown}" in page or key.startswith("allow_"), f"{name}.{key}"


def test_every_input_has_a_tooltip(server: ComfyServer) -> None:
    listed = server.get("/object_info")
    for name in NODES:
        for group in ("required", "optional"):
            for key, spec in listed[name]["input"].get(group, {}).items():
                if spec[0] != "COMFY_AUTOGROW_V3":
                    assert spec[1].get("tooltip"), f"{name}.{key}"
