"""A calibration shows how far it is while it samples, and what it saw in the end."""

from __future__ import annotations

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.browser.comfy_page import SECONDS, Look
from tests.comfyui.browser.conftest import OpenPage
from tests.comfyui.browser.workflows import numbered

STEPS = 40
_ROWS = (
    "element => Object.fromEntries([...element.querySelectorAll('[role=progressbar]')].map(bar =>"
    " [bar.getAttribute('aria-label'),"
    " [Number(bar.getAttribute('aria-valuenow')), Number(bar.getAttribute('aria-valuemax'))]]))"
)


def test_a_calibration_shows_its_progress(open_page: OpenPage, look: Look) -> None:
    page = open_page(look)
    workflow = wf.calibrate(name=f"live_{look.renderer}")
    wf.inputs(workflow, "NVFP4FoundryCalibrate")["accumulate"] = "start over"
    wf.inputs(workflow, "KSampler")["steps"] = STEPS
    workflow = wf.without(workflow, "NVFP4FoundryQuantizeModel", "NVFP4FoundrySaveCheckpoint")
    workflow, ids = numbered(workflow)
    node = ids["NVFP4FoundryCalibrate"]
    page.load_api(workflow)
    page.show_node(node)
    before = page.runs()
    page.queue()
    panel = page.report(node).locator(".nvfp4-node-live")
    panel.get_by_text("sampling").wait_for(timeout=60 * SECONDS)
    page.page.wait_for_function(
        "id => { const bar = document.querySelector("
        "`.nvfp4-node[data-node='${id}'] [role=progressbar][aria-label=steps]`);"
        " return Number(bar?.getAttribute('aria-valuenow')) > 0; }",
        arg=node,
        polling=50,
    )
    rows = panel.evaluate(_ROWS)
    assert 0 < rows["steps"][0] <= rows["steps"][1] == STEPS
    assert rows["prompts"][1] == len(wf.DIGITS) and rows["layers seen"][1] > 0
    assert "digit" in (panel.text_content() or ""), "the present prompt"
    page.screenshot("live-calibration")

    page.wait_for_run(before)
    rows = panel.evaluate(_ROWS)
    assert rows["prompts"] == [len(wf.DIGITS)] * 2
    assert rows["layers seen"][0] == rows["layers seen"][1]
    text = panel.text_content() or ""
    assert "done" in text and "still growing after 3 runs" in text
    page.screenshot("live-calibration-done")
