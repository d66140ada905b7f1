"""Problems are shown in the node that has them, with a button that solves them."""

from __future__ import annotations

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.browser.comfy_page import Look
from tests.comfyui.browser.conftest import OpenPage
from tests.comfyui.browser.test_reports_in_nodes import EARLIER, planned
from tests.comfyui.browser.workflows import LOAD, PLAN, PRESET, plan_workflow


def test_a_wrong_preset_is_solved_by_its_button(open_page: OpenPage, look: Look) -> None:
    page = open_page(look)
    page.load(plan_workflow("qwen-image-2512"))
    page.run()
    page.show(0, 0)
    problem = page.report(PLAN).locator(".nvfp4-node-problem")
    problem.wait_for()
    assert problem.count() == 1, page.problem(PLAN)
    assert "qwen-image-2512" in page.problem(PLAN)
    page.screenshot("wrong-preset")
    problem.locator("button").click()
    assert page.eventually(lambda: "Queue again" in page.problem(PLAN))
    assert page.widget(PRESET, "preset") != "qwen-image-2512"
    page.screenshot("wrong-preset-solved")
    page.undo()
    assert page.eventually(lambda: page.widget(PRESET, "preset") == "qwen-image-2512")
    page.report(PLAN).locator(".nvfp4-node-problem button").click()
    assert page.eventually(lambda: "Queue again" in page.problem(PLAN))
    page.run()
    assert page.problem(PLAN) == ""
    page.report(PLAN).locator(".nv-canvas").wait_for()


def test_a_problem_found_before_the_run_is_one_message(open_page: OpenPage, look: Look) -> None:
    page = planned(open_page, look)
    page.set_widget(PLAN, "rules", "blocks.* = nonsense")
    page.run()
    shown = page.report(PLAN).locator(".nvfp4-node-problem")
    shown.first.wait_for()
    page.settle(500)
    assert shown.count() == 1, page.problem(PLAN)
    assert "nonsense" in page.problem(PLAN)
    page.screenshot("refused")
    page.set_widget(PLAN, "rules", "blocks.*.ffn.2 = bf16")
    page.run()
    assert page.problem(PLAN) == "" and page.status(PLAN) == ""


def test_a_missing_file_is_shown_in_its_node(open_page: OpenPage, look: Look) -> None:
    workflow = plan_workflow()
    workflow["nodes"][0]["widgets_values"] = ["diffusion_models/missing.safetensors"]
    page = open_page(look)
    page.load(workflow)
    page.run()
    assert page.eventually(lambda: "missing.safetensors" in page.problem(LOAD))
    page.screenshot("missing-file")


def test_a_cancelled_run_makes_reports_stale(open_page: OpenPage) -> None:
    page = open_page(Look("classic"))
    workflow = wf.calibrate(seed=1, name="browser", file_name="browser_tiny")
    sampler = int(wf.node(workflow, "KSampler"))
    result = int(wf.node(workflow, "NVFP4FoundryCalibrationResult"))
    page.load_api(workflow)
    page.show_node(result)
    page.run()
    page.report(result).wait_for(state="attached")
    assert page.status(result) == ""
    page.set_widget(sampler, "steps", 2000)
    page.queue()
    page.page.wait_for_function("() => window.app.runningNodeId != null || window.app.progress")
    page.settle(1500)
    page.server.post("/interrupt", {})
    page.server.wait_idle()
    assert page.eventually(lambda: "cancelled before this node" in page.status(result))
    assert page.status(result).startswith(EARLIER)
    page.screenshot("cancelled")
    page.reload()
    page.show_node(result)
    assert page.eventually(lambda: "cancelled before this node" in page.status(result))
