"""Reports in nodes: seen, kept after a reload, marked when they are stale."""

from __future__ import annotations

from tests.comfyui.browser.comfy_page import ComfyPage, Look
from tests.comfyui.browser.conftest import OpenPage
from tests.comfyui.browser.workflows import PLAN, PRESET, plan_workflow

EARLIER = "From an earlier run"
# WCAG's contrast of the text of an element to the nearest background that is not transparent
_CONTRAST = """element => {
  const context = document.createElement("canvas").getContext("2d");
  const channels = colour => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = rgb => rgb.slice(0, 3)
    .map(v => v / 255)
    .map(v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let behind = element, background;
  do background = channels(getComputedStyle(behind).backgroundColor);
  while (background[3] < 250 && (behind = behind.parentElement));
  const both = [luminance(channels(getComputedStyle(element).color)), luminance(background)];
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}"""


def planned(open_page: OpenPage, look: Look) -> ComfyPage:
    """Open a page with a plan that was just made."""
    page = open_page(look)
    page.load(plan_workflow())
    page.run()
    page.report(PLAN).locator(".nv-canvas").wait_for()
    page.show(460, 0)
    return page


def test_a_report_is_seen_and_survives_a_reload(open_page: OpenPage, look: Look) -> None:
    page = planned(open_page, look)
    assert page.status(PLAN) == ""
    assert "MB" in (page.report(PLAN).locator(".nv-tiles").text_content() or "")
    size = page.size(PLAN)
    assert size[0] >= 560
    page.screenshot("plan")
    page.reload()
    page.report(PLAN).locator(".nv-canvas").wait_for()
    assert page.eventually(lambda: page.status(PLAN).startswith(EARLIER))
    assert page.eventually(lambda: page.status(PRESET).startswith(EARLIER))
    page.screenshot("plan-reloaded")
    assert page.size(PLAN) == size
    page.run()  # everything is cached
    assert page.status(PLAN) == "" and page.status(PRESET) == ""


def test_both_themes_can_be_read(open_page: OpenPage, look: Look) -> None:
    for theme in ("light", "dark"):
        page = planned(open_page, Look(look.renderer, theme))
        root = page.report(PLAN).locator(".nv-root")
        assert root.evaluate("root => root.classList.contains('nv-light')") == (theme == "light")
        for part in (".nv-tiles > *", ".nv-text-box pre", ".nv-head h2"):
            contrast = root.locator(part).first.evaluate(_CONTRAST)
            assert contrast >= 4.5, (theme, part)
        page.screenshot("plan")


def test_a_changed_input_makes_a_report_stale(open_page: OpenPage, look: Look) -> None:
    page = planned(open_page, look)
    page.set_widget(PRESET, "preset.edge_blocks", 0)
    for node in (PLAN, PRESET):
        assert page.eventually(lambda node=node: "the inputs changed" in page.status(node))
    page.screenshot("plan-stale")
    page.set_widget(PRESET, "preset.edge_blocks", 1)
    assert page.eventually(lambda: page.status(PLAN) == "")
    page.set_widget(PRESET, "preset.edge_blocks", 2)
    page.run()
    assert page.status(PLAN) == ""
