"""Reports inside subgraphs and in workflow tabs that were in the background."""

from __future__ import annotations

from tests.comfyui.browser.comfy_page import Look
from tests.comfyui.browser.conftest import OpenPage
from tests.comfyui.browser.test_reports_in_nodes import EARLIER, planned
from tests.comfyui.browser.workflows import PLAN, plan_workflow


def test_a_report_is_there_when_its_tab_comes_back(open_page: OpenPage, look: Look) -> None:
    page = planned(open_page, look)
    first = page.tab()
    page.load(plan_workflow())  # another workflow, in a tab of its own
    assert page.report(PLAN).count() == 0
    page.open_tab(first)
    page.report(PLAN).locator(".nv-canvas").wait_for()
    assert page.eventually(lambda: page.status(PLAN) == "")


def test_a_run_that_ends_in_the_background(open_page: OpenPage, look: Look) -> None:
    page = open_page(look)
    page.load(plan_workflow())
    first = page.tab()
    before = page.runs()
    with page.page.expect_response("**/prompt"):  # it takes the workflow that is open
        page.queue()
    page.load(plan_workflow())
    page.wait_for_run(before)
    assert page.report(PLAN).count() == 0, "the other tab's report is not shown here"
    page.open_tab(first)
    page.report(PLAN).locator(".nv-canvas").wait_for()
    page.screenshot("tab-back")


def test_a_report_inside_a_subgraph(open_page: OpenPage, look: Look) -> None:
    page = open_page(look)
    page.load(plan_workflow())
    inner = page.page.evaluate(
        "id => { const { graph } = window.app.canvas;"
        " const { subgraph, node } = graph.convertToSubgraph(new Set([graph.getNodeById(id)]));"
        " return [String(node.id), String(subgraph.nodes[0].id)]; }",
        PLAN,
    )
    page.run()
    shown = page.page.evaluate(
        "([outer]) => { const node = window.app.graph.getNodeById(Number(outer))"
        " ?? window.app.graph.getNodeById(outer);"
        " window.app.canvas.setGraph(node.subgraph);"
        " return node.subgraph.nodes[0].properties.nvfp4_report; }",
        inner,
    )
    assert shown["of"] == ":".join(inner)
    page.settle(800)
    page.report(inner[1]).locator(".nv-canvas").wait_for()
    assert page.eventually(lambda: page.status(inner[1]) == "")
    page.screenshot("subgraph")
    page.reload()
    page.page.evaluate(
        "([outer]) => window.app.canvas.setGraph((window.app.rootGraph.getNodeById(Number(outer))"
        " ?? window.app.rootGraph.getNodeById(outer)).subgraph)",
        inner,
    )
    page.report(inner[1]).locator(".nv-canvas").wait_for()
    assert page.eventually(lambda: page.status(inner[1]).startswith(EARLIER))
