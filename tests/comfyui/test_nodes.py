"""The pack as ComfyUI lists and serves it: nodes, descriptions, web files."""

from __future__ import annotations

import urllib.request

from tests.comfyui.comfy_server import ROOT, ComfyServer

NODES = {
    "NVFP4FoundryLoadSourceModel",
    "NVFP4FoundrySelectPreset",
    "NVFP4FoundryLoadRecipe",
    "NVFP4FoundryRecipeFromGguf",
    "NVFP4FoundryRecipeFromCheckpoint",
    "NVFP4FoundryRecipeFromCalibration",
    "NVFP4FoundryRecipeFromSensitivity",
    "NVFP4FoundryEditRecipe",
    "NVFP4FoundrySaveRecipe",
    "NVFP4FoundryPlanLayers",
    "NVFP4FoundryCalibrationPrompts",
    "NVFP4FoundryCalibrate",
    "NVFP4FoundryCalibrationResult",
    "NVFP4FoundryLoadCalibration",
    "NVFP4FoundryMergeCalibrations",
    "NVFP4FoundryImportActivationLog",
    "NVFP4FoundryExportInputScales",
    "NVFP4FoundryMeasureSensitivity",
    "NVFP4FoundryProbeLatentShift",
    "NVFP4FoundryProbeResult",
    "NVFP4FoundryLoadSensitivity",
    "NVFP4FoundryAutoMix",
    "NVFP4FoundryQuantizeModel",
    "NVFP4FoundryPlanTextEncoder",
    "NVFP4FoundryQuantizeTextEncoder",
    "NVFP4FoundrySaveCheckpoint",
    "NVFP4FoundryQuantizeFile",
    "NVFP4FoundryInspectCheckpoint",
    "NVFP4FoundryRescaleCheckpoint",
    "NVFP4FoundryCompareSamples",
}


def test_nodes_are_listed_and_the_log_has_no_warnings(server: ComfyServer) -> None:
    listed = server.get("/object_info")
    assert {name for name in listed if name.startswith("NVFP4Foundry")} == NODES
    for name in NODES:
        assert listed[name]["category"] == "NVFP4 Foundry"
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
