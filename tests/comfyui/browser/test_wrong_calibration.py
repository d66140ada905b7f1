"""A calibration of another model is refused in the node, with a button where one helps."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file, save_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.browser.comfy_page import Look
from tests.comfyui.browser.conftest import OpenPage
from tests.comfyui.browser.workflows import calibrated, numbered
from tests.comfyui.comfy_server import TINY, ComfyServer

OTHER = "diffusion_models/other_wan.safetensors"


@pytest.fixture
def other(server: ComfyServer) -> str:
    """The tiny WAN after some training: the same layers, other biases and norms."""
    tensors = {n: t + 1 if t.ndim == 1 else t for n, t in load_file(TINY).items()}
    save_file(tensors, server.base / "models" / OTHER)
    return OTHER


def test_the_name_of_another_models_calibration(
    open_page: OpenPage, look: Look, server: ComfyServer, other: str
) -> None:
    taken = calibrated(server)
    workflow = wf.calibrate(name=taken)
    wf.inputs(workflow, "NVFP4FoundryLoadSourceModel")["model_file"] = other
    workflow = wf.without(workflow, "NVFP4FoundryQuantizeModel", "NVFP4FoundrySaveCheckpoint")
    workflow, ids = numbered(workflow)
    node = ids["NVFP4FoundryCalibrate"]
    page = open_page(look)
    page.load_api(workflow)
    page.show_node(node)
    page.run()
    problem = page.report(node).locator(".nvfp4-node-problem")
    problem.wait_for()
    assert problem.count() == 1, page.problem(node)
    assert taken in page.problem(node) and "different model" in page.problem(node)
    page.screenshot("wrong-calibration")
    problem.locator("button").click()
    assert page.eventually(lambda: page.widget(node, "name") not in ("", taken))
    page.run()
    assert page.problem(node) == ""
    assert page.queued_prompt()[str(node)]["inputs"]["name"] != taken


def test_a_saved_calibration_of_another_model(
    open_page: OpenPage, look: Look, server: ComfyServer, other: str
) -> None:
    workflow = wf.calibrate(name="unused")
    wf.inputs(workflow, "NVFP4FoundryLoadSourceModel")["model_file"] = other
    wf.add(workflow, "90", "NVFP4FoundryLoadCalibration", name=calibrated(server))
    quantize = wf.inputs(workflow, "NVFP4FoundryQuantizeModel")
    kept = ("LoadSourceModel", "SelectPreset", "PlanLayers", "QuantizeModel", "LoadCalibration")
    classes = [f"NVFP4Foundry{kind}" for kind in kept]
    quantize["statistics"] = ["90", 0]
    workflow = {key: node for key, node in workflow.items() if node["class_type"] in classes}
    workflow, ids = numbered(workflow)
    node = ids["NVFP4FoundryQuantizeModel"]
    page = open_page(look)
    page.load_api(workflow)
    page.show_node(node)
    page.run()
    page.report(node).locator(".nvfp4-node-problem").wait_for()
    assert "different model" in page.problem(node)
    page.screenshot("wrong-saved-calibration")
    page.set_widget(ids["NVFP4FoundryLoadSourceModel"], "model_file", wf_model())
    page.run()
    assert page.problem(node) == "" and page.status(node) == ""


def wf_model() -> str:
    """Return the model that the calibration is of."""
    return wf.inputs(wf.calibrate(), "NVFP4FoundryLoadSourceModel")["model_file"]
