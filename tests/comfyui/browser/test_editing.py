"""Clicks on the layer map become rule lines, which undo takes back and a run applies."""

from __future__ import annotations

from tests.comfyui.browser.comfy_page import ComfyPage, Look
from tests.comfyui.browser.conftest import OpenPage
from tests.comfyui.browser.test_reports_in_nodes import planned
from tests.comfyui.browser.workflows import PLAN


def give_format(page: ComfyPage, pattern: str, name: str) -> None:
    """Select layers by name and give them a format."""
    bar = page.report(PLAN).locator(".nv-edit-bar")
    bar.get_by_label("Select layers by name").fill(pattern)
    bar.locator("select").select_option(name)
    bar.locator("button.nv-primary").click()
    page.settle(300)


def size(page: ComfyPage) -> str:
    """Return the tile with the sizes before and after."""
    return page.report(PLAN).locator(".nv-tiles").text_content() or ""


def test_an_edit_is_undone_queued_and_kept(open_page: OpenPage, look: Look) -> None:
    page = planned(open_page, look)
    before = size(page)
    give_format(page, "ffn.2", "bf16")
    rules = page.widget(PLAN, "rules")
    assert "ffn.2" in rules and "bf16" in rules
    edited = size(page)
    assert edited != before, "the sizes follow at once"
    assert page.eventually(lambda: "the inputs changed" in page.status(PLAN))
    page.screenshot("plan-edited")

    page.undo()
    assert page.eventually(lambda: page.widget(PLAN, "rules") == "")
    assert page.eventually(lambda: size(page) == before), "the map follows the widget"
    page.redo()
    assert page.eventually(lambda: page.widget(PLAN, "rules") == rules)
    assert page.eventually(lambda: size(page) == edited)

    page.run()
    assert page.queued_prompt()[str(PLAN)]["inputs"]["rules"] == rules
    assert page.status(PLAN) == ""
    assert "bf16" in (page.report(PLAN).locator(".nv-tiles").text_content() or "")
    page.reload()
    page.report(PLAN).locator(".nv-canvas").wait_for()
    assert page.widget(PLAN, "rules") == rules
    assert page.eventually(lambda: "bf16" in size(page))


def test_the_map_follows_what_is_typed(open_page: OpenPage, look: Look) -> None:
    page = planned(open_page, look)
    before = size(page)
    box = page.page.locator("textarea:visible").filter(has_not=page.page.locator("xx"))
    texts = [box.nth(i) for i in range(box.count())]
    rules = max(texts, key=lambda text: (text.bounding_box() or {"x": 0})["x"])
    rules.click()
    page.page.keyboard.type("blocks.* = bf16")
    assert page.eventually(lambda: page.widget(PLAN, "rules") == "blocks.* = bf16")
    assert page.eventually(lambda: size(page) != before)


def test_a_cell_is_chosen_with_the_mouse(open_page: OpenPage, look: Look) -> None:
    page = planned(open_page, look)
    canvas = page.report(PLAN).locator(".nv-canvas")
    # the first pixel of the map's colours, a little to the right and below
    x, y = canvas.evaluate(
        "c => { const { width: w, height: h } = c;"
        " const d = c.getContext('2d').getImageData(0, 0, w, h).data;"
        " for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {"
        "   const i = 4 * (y * w + x), p = [d[i], d[i + 1], d[i + 2]];"
        "   if (d[i + 3] > 200 && Math.max(...p) - Math.min(...p) > 90)"
        "     return [(x + 8) / w, (y + 8) / h]; } }"
    )
    box = canvas.bounding_box()
    assert box is not None
    page.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.settle(300)
    note = page.report(PLAN).locator(".nv-edit-note").text_content() or ""
    assert note.startswith("1 layer selected")
    page.screenshot("plan-cell")
    page.page.keyboard.press("Escape")  # closes the details, which lie over the format
    bar = page.report(PLAN).locator(".nv-edit-bar")
    bar.locator("select").select_option("bf16")
    bar.locator("button.nv-primary").click()
    assert page.widget(PLAN, "rules").endswith("= bf16")
