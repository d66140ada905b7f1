"""The widget of formats of Auto Mix: drawn by both renderers, undone by ComfyUI's own undo."""

from __future__ import annotations

from tests.comfyui.browser.comfy_page import Look
from tests.comfyui.browser.conftest import OpenPage

USUAL = "nvfp4, float8_e4m3fn, bf16"


def test_formats_are_switched_and_saved(open_page: OpenPage, look: Look) -> None:
    page = open_page(look)
    node = 1
    saved = {"id": node, "type": "NVFP4FoundryAutoMix", "pos": [100, 100], "size": [400, 500]}
    graph = {"nodes": [saved], "links": [], "groups": [], "version": 0.4}
    page.load({"last_node_id": 1, "last_link_id": 0, **graph})
    page.settle()
    assert page.widget(node, "formats") == USUAL
    chips = page.page.locator(".nvfp4-node-formats button")
    assert chips.count() >= 12
    page.show_node(node)
    page.settle()
    page.screenshot(f"formats-{look}")

    chips.get_by_text("bf16", exact=True).click()
    assert page.widget(node, "formats") == "nvfp4, float8_e4m3fn"
    prompt = page.page.evaluate("async () => (await window.app.graphToPrompt()).output")
    assert prompt[str(node)]["inputs"]["formats"] == "nvfp4, float8_e4m3fn"
    page.undo()
    assert page.eventually(lambda: page.widget(node, "formats") == USUAL)
    chips.get_by_text("int8_convrot", exact=True).click()
    page.settle(1500)  # the draft is written
    page.reload()
    assert page.eventually(lambda: page.widget(node, "formats") == f"{USUAL}, int8_convrot")
    pressed = page.page.locator(".nvfp4-node-formats button[aria-pressed=true]")
    assert pressed.count() == 4
