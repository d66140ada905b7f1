"""Auto Mix: the curve sets the budget, and the next run mixes for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.browser.comfy_page import HEIGHT, ComfyPage, Look
from tests.comfyui.browser.conftest import OpenPage
from tests.comfyui.browser.workflows import calibrated, numbered

FIELD = "input.nv-budget"


def mixed(open_page: OpenPage, look: Look, budget: dict[str, Any]) -> tuple[ComfyPage, int]:
    """Open a page with a mix that was just made; return it with the id of Auto Mix."""
    page = open_page(look)
    name = calibrated(page.server)
    workflow = wf.measure_and_mix()
    kept = ("LoadSourceModel", "SelectPreset", "PlanLayers", "MeasureSensitivity", "AutoMix")
    classes = [f"NVFP4Foundry{kind}" for kind in kept]
    workflow = {key: node for key, node in workflow.items() if node["class_type"] in classes}
    wf.add(workflow, "90", "NVFP4FoundryLoadCalibration", name=name)
    measure = wf.inputs(workflow, "NVFP4FoundryMeasureSensitivity")
    measure["statistics"] = ["90", 0]
    wf.inputs(workflow, "NVFP4FoundryAutoMix").update(
        sensitivity=[wf.node(workflow, "NVFP4FoundryMeasureSensitivity"), 0], save_as="", **budget
    )
    workflow, ids = numbered(workflow)
    mix = ids["NVFP4FoundryAutoMix"]
    page.load_api(workflow)
    page.run()
    page.show_node(mix)
    page.report(mix).locator(".nv-frontier canvas").wait_for()
    return page, mix


def tile(page: ComfyPage, node: int) -> str:
    """Return the tiles of a report."""
    return page.report(node).locator(".nv-tiles").text_content() or ""


def budget_of(page: ComfyPage, node: int) -> tuple[Any, Any]:
    """Return the kind of budget and its bits."""
    return page.widget(node, "budget"), page.widget(node, "budget.bits")


def test_dragging_along_the_curve_sets_the_budget(open_page: OpenPage, look: Look) -> None:
    page, mix = mixed(open_page, look, {"budget": "average bits", "budget.bits": 6.0})
    before = tile(page, mix)
    curve = page.report(mix).locator(".nv-frontier .u-over")
    page.show_node(mix, below=450)
    box = curve.bounding_box()
    assert box is not None and 0 < box["y"] < HEIGHT - box["height"]
    middle = box["y"] + box["height"] / 2
    page.page.mouse.move(box["x"] + box["width"] * 0.5, middle)
    page.page.mouse.down()
    for part in (0.4, 0.2, 0.05):
        page.page.mouse.move(box["x"] + box["width"] * part, middle)
    shown = page.report(mix).locator(FIELD).input_value()
    assert budget_of(page, mix) == ("average bits", 6.0), "only the end of a drag counts"
    page.page.mouse.up()
    assert page.eventually(lambda: budget_of(page, mix) == ("average bits", float(shown)))
    bits = float(shown)
    assert bits < 6.0
    assert page.eventually(lambda: "the inputs changed" in page.status(mix))
    page.screenshot("mix-dragged")

    page.run()
    assert page.queued_prompt()[str(mix)]["inputs"]["budget.bits"] == bits
    assert page.status(mix) == "" and tile(page, mix) != before
    page.undo()
    assert page.eventually(lambda: budget_of(page, mix) == ("average bits", 6.0)), "one step"


@pytest.mark.parametrize(
    ("kind", "choice", "widget", "value"),
    [
        ("bits", "average bits", "budget.bits", 5.5),
        ("error", "largest error", "budget.percent", 4.0),
    ],
)
def test_typing_a_budget_changes_the_mix(
    open_page: OpenPage, look: Look, kind: str, choice: str, widget: str, value: float
) -> None:
    page, mix = mixed(open_page, look, {"budget": "preset's own size"})
    before = tile(page, mix)
    report = page.report(mix)
    report.get_by_label("Kind of budget").select_option(kind)
    report.locator(FIELD).fill(str(value))
    report.locator(FIELD).press("Enter")
    assert page.eventually(lambda: page.widget(mix, widget) == value)
    assert page.widget(mix, "budget") == choice
    page.screenshot(f"mix-typed-{kind}")
    page.run()
    inputs = page.queued_prompt()[str(mix)]["inputs"]
    assert (inputs["budget"], inputs[widget]) == (choice, value)
    assert page.problem(mix) == "" and page.status(mix) == ""
    assert tile(page, mix) != before
    assert report.get_by_label("Kind of budget").input_value() == kind
