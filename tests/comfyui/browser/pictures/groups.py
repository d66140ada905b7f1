"""What is done in the page for each picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nvfp4_foundry.quant.checkpoint import inspect_checkpoint
from nvfp4_foundry.quant.reports.page import render_page
from nvfp4_foundry.quant.reports.view import checkpoint_view
from PIL import Image

from tests.comfyui.browser.comfy_page import ComfyPage
from tests.comfyui.browser.pictures import camera, scenes
from tests.comfyui.browser.workflows import PLAN, plan_workflow
from tests.comfyui.comfy_server import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Locator

HELP, DOCS = ROOT / "web" / "docs", ROOT / "docs" / "images"
_OURS = "NVFP4Foundry"
#: The nodes of the picture of a whole workflow, from left to right and downwards.
_COLUMNS = (
    ("LoadSourceModel", "SelectPreset", "CalibrationPrompts", "Calibrate"),
    ("PlanLayers", "DigitsTextEncoder", "CLIPTextEncode", "CLIPTextEncode 2"),
    ("ModelSamplingSD3", "EmptyHunyuanLatentVideo", "KSampler", "CalibrationResult"),
    ("QuantizeModel", "SaveCheckpoint"),
)


def _help_pictures(page: ComfyPage, ids: dict[str, int], *names: str) -> None:
    for name in names:
        image = camera.picture_of(page, ids[_OURS + name])
        camera.save(image, HELP / f"{_OURS}{name}.webp", camera.NODE)
        _show_in_help(_OURS + name)


def _show_in_help(node: str) -> None:
    """Put the picture of a node below the title of its help page, if it is not there yet."""
    page = HELP / f"{node}.md"
    title, _, rest = page.read_text(encoding="utf-8").partition("\n")
    line = f"![{title.removeprefix('# ')}]({node}.webp)"
    if line not in rest:
        page.write_text(f"{title}\n\n{line}\n{rest}", encoding="utf-8", newline="\n")


def _keep(image: Image.Image, name: str) -> None:
    camera.save(image, DOCS / f"{name}.webp", camera.DOCS)


def _full_screen(page: ComfyPage, node: int, height: int) -> Locator:
    """Open the report of a node over the whole page; return it."""
    page.report(node).get_by_label("Full screen").first.evaluate("button => button.click()")
    page.page.set_viewport_size({"width": 1280, "height": height})
    page.page.wait_for_timeout(600)
    return page.page.locator(".nv-over")


def _click_cell(report: Locator, row: int, column: int) -> None:
    """Click a cell of the map with the keyboard."""
    canvas = report.locator(".nv-canvas").first
    canvas.focus()
    for key, times in (("ArrowDown", row), ("ArrowRight", column)):
        for _ in range(times):
            canvas.press(key)
    canvas.press("Enter")


def calibrate(page: ComfyPage) -> None:
    """Plan, calibrate, quantize and save; the panel while it samples."""
    ids = camera.open_workflow(page, scenes.calibrate(int(time.time())))
    observed = ids["NVFP4FoundryCalibrate"]
    camera.aim(page, observed)
    before = page.runs()
    page.queue()
    live = page.report(observed).locator(".nvfp4-node-live").filter(has_text="2 of 3")
    live.wait_for(timeout=60_000)
    _keep(camera.picture_of(page, observed), "calibrating")
    camera.wait_for_end(page, before)
    _help_pictures(
        page, ids, "LoadSourceModel", "SelectPreset", "PlanLayers", "CalibrationPrompts",
        "Calibrate", "CalibrationResult", "QuantizeModel", "SaveCheckpoint",
    )  # fmt: skip
    columns = [[ids.get(_OURS + name) or ids[name] for name in column] for column in _COLUMNS]
    _keep(camera.lay_out(page, columns), "workflow")
    _full_reports(page, ids)


def _full_reports(page: ComfyPage, ids: dict[str, int]) -> None:
    report = _full_screen(page, ids[_OURS + "CalibrationResult"], height=620)
    _click_cell(report, 9, 12)
    page.page.wait_for_timeout(600)
    _keep(camera.picture_of_page(page.page), "calibration-result")
    page.page.keyboard.press("Escape")
    page.page.keyboard.press("Escape")
    page.page.wait_for_timeout(300)
    report = _full_screen(page, ids[_OURS + "SaveCheckpoint"], height=880)
    report.locator(".nv-select").first.select_option("w4a4")
    _click_cell(report, 8, 14)
    page.page.wait_for_timeout(600)
    _keep(camera.picture_of_page(page.page), "layers")
    page.page.keyboard.press("Escape")
    page.page.set_viewport_size({"width": 1280, "height": 680})
    report.get_by_role("tab", name="Table").click()
    report.get_by_role("button", name="Worst 20").click()
    page.page.mouse.move(1270, 670)
    page.page.wait_for_timeout(600)
    _keep(camera.picture_of_page(page.page), "worst-layers")


def measure(page: ComfyPage) -> None:
    """Measure, probe and mix."""
    ids = camera.open_workflow(page, scenes.measure())
    camera.finish(page)
    _help_pictures(
        page, ids, "LoadCalibration", "MeasureSensitivity", "ProbeLatentShift", "ProbeResult",
        "AutoMix",
    )  # fmt: skip
    _full_screen(page, ids["NVFP4FoundryAutoMix"], height=920)
    _keep(camera.picture_of_page(page.page), "auto-mix")


def files(page: ComfyPage) -> None:
    """Inspect, rescale, import, merge and export."""
    ids = camera.open_workflow(page, scenes.files())
    camera.finish(page)
    _help_pictures(
        page, ids, "InspectCheckpoint", "RescaleCheckpoint", "ImportActivationLog",
        "MergeCalibrations", "ExportInputScales",
    )  # fmt: skip


def recipes(page: ComfyPage) -> None:
    """Recipes from and to files."""
    ids = camera.open_workflow(page, scenes.recipes())
    camera.finish(page)
    _help_pictures(page, ids, "LoadRecipe", "EditRecipe", "SaveRecipe")


def quantize_file(page: ComfyPage) -> None:
    """One node that does all."""
    ids = camera.open_workflow(page, scenes.quantize_file())
    camera.finish(page)
    _help_pictures(page, ids, "QuantizeFile")


def compare(page: ComfyPage) -> None:
    """Two samples side by side."""
    camera.open_workflow(page, scenes.quantize_tiny())
    camera.finish(page)
    ids = camera.open_workflow(page, scenes.compare())
    camera.finish(page)
    _help_pictures(page, ids, "CompareSamples")


def edit(page: ComfyPage) -> None:
    """Formats given by clicking on the map, and a report that is out of date."""
    ids = camera.open_workflow(page, scenes.plan())
    camera.finish(page)
    plan = ids["NVFP4FoundryPlanLayers"]
    camera.aim(page, plan)
    bar = page.report(plan).locator(".nv-edit-bar")
    for pattern, name in (("blocks.*.cross_attn.o", "bf16"), ("blocks.2[0-3].ffn.*", "bf16")):
        bar.locator("input").fill(pattern)
        bar.locator("select").select_option(name)
        bar.locator("button.nv-primary").click()
        page.page.wait_for_timeout(500)
    _keep(camera.picture_of(page, plan), "edit-plan")
    page.set_widget(plan, "rules", "")
    page.set_widget(ids["NVFP4FoundrySelectPreset"], "preset.edge_blocks", 0)
    page.page.wait_for_timeout(800)
    _keep(camera.picture_of(page, plan), "stale")


def problem(page: ComfyPage) -> None:
    """A preset for another model."""
    page.load(plan_workflow("qwen-image-2512"))
    page.run()
    camera.aim(page, PLAN)
    page.report(PLAN).locator(".nvfp4-node-problem button").wait_for()
    page.page.wait_for_timeout(1000)
    _keep(camera.picture_of(page, PLAN), "problem")


def search(page: ComfyPage) -> None:
    """What the search offers for "fp8"."""
    page.page.set_viewport_size({"width": 1100, "height": 720})
    page.page.evaluate("() => window.app.rootGraph.clear()")
    page.page.wait_for_timeout(500)
    page.page.mouse.dblclick(500, 300)
    page.page.locator("input:focus").fill("fp8")
    page.page.wait_for_timeout(1200)
    _keep(camera.picture_of_page(page.page), "search")


def templates(page: ComfyPage) -> None:
    """Our templates in ComfyUI's browser of templates."""
    page.page.set_viewport_size({"width": 1400, "height": 900})
    page.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.page.wait_for_timeout(2500)
    page.page.get_by_text("nvfp4-foundry").first.click(timeout=60_000)
    page.page.wait_for_timeout(2500)
    _keep(camera.picture_of_page(page.page), "templates")


def report(page: ComfyPage) -> None:
    """The report as a page of its own, in light colours, and the model card's picture."""
    path = page.server.base / "models" / scenes.QUANTIZED_FILE
    html = page.server.base / "report.html"
    html.write_text(render_page(checkpoint_view(inspect_checkpoint(path))), encoding="utf-8")
    page.page.emulate_media(color_scheme="light")
    page.page.set_viewport_size({"width": 1280, "height": 680})
    page.page.goto(html.as_uri())
    page.page.locator(".nv-canvas").wait_for()
    page.page.locator(".nv-select").first.select_option("w4a4")
    _click_cell(page.page.locator(".nv-root"), 8, 14)
    page.page.wait_for_timeout(500)
    _keep(camera.picture_of_page(page.page), "html-report")
    _keep(Image.open(path.with_suffix(".png")).convert("RGB"), "model-card")


#: By name; each opens what it shows by itself, but all need the files that ``calibrate`` saves.
GROUPS: dict[str, Callable[[ComfyPage], None]] = {
    group.__name__: group
    for group in (
        calibrate, measure, files, recipes, quantize_file, compare, edit, problem, search,
        templates, report,
    )
}  # fmt: skip
