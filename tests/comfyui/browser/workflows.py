"""Small workflows of the page's own format."""

from __future__ import annotations

import uuid
from typing import Any

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import ComfyServer

LOAD, PRESET, PLAN = 1, 2, 3


def _node(key: int, kind: str, at: tuple[int, int], **more: Any) -> dict[str, Any]:
    node = {
        "id": key, "type": f"NVFP4Foundry{kind}", "pos": list(at), "size": [400, 100],
        "flags": {}, "order": key, "mode": 0, "inputs": [], "outputs": [], "properties": {},
    }  # fmt: skip
    return {**node, **more}


def plan_workflow(preset: str = "wan2.2-14b") -> dict[str, Any]:
    """Load Source Model, Select NVFP4 Preset and Plan Layers on the tiny WAN."""
    load = _node(
        LOAD, "LoadSourceModel", (0, 0),
        outputs=[{"name": "MODEL", "type": "MODEL", "links": [1]}],
        widgets_values=["diffusion_models/tiny_wan.safetensors"],
    )  # fmt: skip
    select = _node(
        PRESET, "SelectPreset", (0, 200),
        outputs=[{"name": "RECIPE", "type": "NVFP4_RECIPE", "links": [2]}],
        widgets_values=[preset, 1] if preset.startswith("wan") else [preset],
    )  # fmt: skip
    plan = _node(
        PLAN, "PlanLayers", (460, 0),
        inputs=[
            {"name": "model", "type": "MODEL", "link": 1},
            {"name": "recipe", "type": "NVFP4_RECIPE", "link": 2},
        ],
    )  # fmt: skip
    return {
        "id": str(uuid.uuid4()), "revision": 0, "last_node_id": 3, "last_link_id": 2,
        "nodes": [load, select, plan],
        "links": [[1, LOAD, 0, PLAN, 0, "MODEL"], [2, PRESET, 0, PLAN, 1, "NVFP4_RECIPE"]],
        "groups": [], "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


def file_workflow(file_name: str) -> dict[str, Any]:
    """Quantize File to NVFP4 on the tiny WAN, and the stock loader beside it."""
    convert = _node(1, "QuantizeFile", (0, 0), size=[480, 300])
    convert["properties"] = {"nvfp4_migrated_values": {
        "model_file": "diffusion_models/tiny_wan.safetensors", "file_name": file_name,
    }}  # fmt: skip
    loader = {**_node(2, "", (560, 0)), "type": "UNETLoader", "widgets_values": [None, "default"]}
    return {
        "id": str(uuid.uuid4()), "revision": 0, "last_node_id": 2, "last_link_id": 0,
        "nodes": [convert, loader], "links": [], "groups": [], "config": {}, "extra": {},
        "version": 0.4,
    }  # fmt: skip


def inspect_workflow(model_file: str) -> dict[str, Any]:
    """Inspect Checkpoint alone."""
    node = _node(1, "InspectCheckpoint", (0, 0), widgets_values=[model_file])
    return {
        "id": str(uuid.uuid4()), "revision": 0, "last_node_id": 1, "last_link_id": 0,
        "nodes": [node], "links": [], "groups": [], "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


def numbered(workflow: wf.Workflow) -> tuple[wf.Workflow, dict[str, int]]:
    """Return a workflow in API form with numbers for ids, and the last id of each class.

    ComfyUI's page keeps such ids when it opens the workflow.
    """
    numbers = {key: number for number, key in enumerate(workflow, 1)}

    def value_of(value: Any) -> Any:
        if isinstance(value, list) and len(value) == 2 and value[0] in numbers:
            return [str(numbers[value[0]]), value[1]]
        return value

    made = {
        str(numbers[key]): {**node, "inputs": {k: value_of(v) for k, v in node["inputs"].items()}}
        for key, node in workflow.items()
    }
    return made, {node["class_type"]: numbers[key] for key, node in workflow.items()}


def calibrated(server: ComfyServer, name: str = "browser_saved") -> str:
    """Return the name of a saved calibration of the tiny WAN; made once."""
    saved = server.get("/object_info/NVFP4FoundryLoadCalibration")
    spec = saved["NVFP4FoundryLoadCalibration"]["input"]["required"]["name"]
    options = spec[0] if isinstance(spec[0], list) else spec[1]["options"]
    if name not in options:
        workflow = wf.without(
            wf.calibrate(name=name),
            "NVFP4FoundryQuantizeModel", "NVFP4FoundrySaveCheckpoint",
        )  # fmt: skip
        run = server.run(workflow)
        assert run.status == "success", run.error
    return name
