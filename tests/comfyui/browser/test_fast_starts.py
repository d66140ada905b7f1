"""Fast starts: how many clicks it takes, counted by performing them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pytest
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from safetensors import safe_open

from tests.comfyui.browser.comfy_page import HEIGHT, WIDTH, ComfyPage, Look
from tests.comfyui.browser.conftest import OpenPage
from tests.comfyui.browser.workflows import calibrated
from tests.comfyui.comfy_server import ROOT, TINY, ComfyServer

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Route

MODEL = "diffusion_models/tiny_wan.safetensors"
PACK = "nvfp4-foundry-main.v1"  # the folder that the server of the tests loads the pack from
CALIBRATE = "Calibrate and quantize a model"
MIDDLE = (WIDTH * 0.5, HEIGHT * 0.4)


class Hand:
    """A user who counts: a click or a double click is one, typing and the keyboard are none."""

    def __init__(self, page: ComfyPage) -> None:
        self.page, self.settle, self.clicks = page.page, page.settle, 0

    def click(self, target: Locator) -> None:
        """Click something."""
        self.clicks += 1
        target.click()
        self.settle(500)

    def click_at(self, x: float, y: float) -> None:
        """Click on the canvas."""
        self.clicks += 1
        self.page.mouse.click(x, y)
        self.settle(500)

    def search(self, words: str) -> None:
        """Open the search with a double click, type, take the first result, put it down."""
        self.clicks += 1
        self.page.mouse.dblclick(*MIDDLE)
        box = self.page.locator("input:focus")
        box.wait_for()
        box.fill(words)
        self.settle(700)
        self.page.keyboard.press("Enter")
        self.settle(400)
        self.click_at(*MIDDLE)  # older versions put it down by themselves

    def choose(self, page: ComfyPage, node: int, widget: str, option: str) -> None:
        """Choose an option of a widget: one click opens the list, one chooses."""
        if page.look.renderer == "vue":
            element = self.page.locator(f"[data-node-id='{node}']")
            self.click(element.get_by_role("combobox").first)
            self.click(self.page.get_by_role("option", name=option).first)
            return
        x, y = self.page.evaluate(
            "([id, name]) => { const node = app.graph.getNodeById(id);"
            " const widget = node.widgets.find(w => w.name === name);"
            " const at = [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10];"
            " const [x, y] = app.canvas.convertOffsetToCanvas(at);"
            " const box = app.canvas.canvas.getBoundingClientRect();"
            " return [x + box.left, y + box.top]; }",
            [node, widget],
        )
        self.click_at(x, y)
        self.click(self.page.locator(".litemenu-entry", has_text=option).first)


def node_of(page: ComfyPage, kind: str) -> int:
    """Return the id of the only node of a class, and show it in the middle without a click."""
    (found,) = page.page.evaluate(
        "kind => app.graph.nodes.filter(n => n.comfyClass === kind)"
        ".map(n => [n.id, n.pos[0], n.pos[1]])",
        f"NVFP4Foundry{kind}",
    )
    page.show(found[1] - 300, found[2] - 150)
    page.settle(500)
    return found[0]


def run_by_keyboard(page: ComfyPage) -> None:
    """Queue the workflow with Ctrl+Enter and wait until it has ended."""
    before = page.runs()
    page.page.evaluate("() => document.activeElement?.blur?.()")
    page.page.keyboard.press("Control+Enter")
    page.wait_for_run(before)


def saved(server: ComfyServer) -> Path:
    """Return the newest checkpoint under the name of the source."""
    folder = server.base / "models" / "diffusion_models"
    return max(folder.glob("tiny_wan_nvfp4*.safetensors"), key=lambda path: path.stat().st_mtime)


def clean(server: ComfyServer) -> None:
    """Remove what earlier tests saved."""
    for path in (server.base / "models" / "diffusion_models").glob("tiny_wan_nvfp4*"):
        path.unlink()


def test_from_an_empty_canvas_to_a_converted_file_in_four_clicks(
    open_page: OpenPage, look: Look, server: ComfyServer
) -> None:
    clean(server)
    page = open_page(look)
    page.page.evaluate("() => app.graph.clear()")
    hand = Hand(page)
    hand.search("quantize file")
    node = node_of(page, "QuantizeFile")
    hand.choose(page, node, "model_file", MODEL)
    run_by_keyboard(page)
    assert verify_checkpoint(saved(server), TINY).problems == ()
    assert hand.clicks <= 4
    page.screenshot("four-clicks")


def small(text: str) -> dict[str, Any]:
    """Return a template with stand-ins for the big files: a tiny text encoder and latent."""
    workflow = json.loads(text)
    for node in workflow["nodes"]:
        if node["type"] == "CLIPLoader":
            node.update(type="DigitsTextEncoder", inputs=[], widgets_values=[])
        elif node["type"] == "EmptyHunyuanLatentVideo":
            node["widgets_values"] = [64, 64, 1, 1]
        elif node["type"] == "NVFP4FoundryCalibrationPrompts":
            node["widgets_values"] = ["typed", "digit 1\ndigit 4", 4]
        elif node["type"] == "KSampler":
            node["widgets_values"][2] = 2
    return workflow


def test_from_a_template_to_a_saved_calibrated_checkpoint_in_eight_clicks(
    open_page: OpenPage, look: Look, server: ComfyServer
) -> None:
    clean(server)
    page = open_page(look)

    def answer(route: Route) -> None:
        reply = route.fetch()
        assert reply.ok, unquote(route.request.url)
        route.fulfill(response=reply, json=small(reply.text()))

    page.page.route("**/workflow_templates/**/*.json", answer)
    hand = Hand(page)
    open_template(page, hand, CALIBRATE)
    loader = node_of(page, "LoadSourceModel")
    hand.choose(page, loader, "model_file", MODEL)
    before = page.runs()
    hand.click(page.page.get_by_test_id("queue-button").first)
    page.wait_for_run(before)
    assert verify_checkpoint(saved(server), TINY).problems == ()
    with safe_open(saved(server), "pt") as file:
        names = list(file.keys())
    assert any(name.endswith(".input_scale") for name in names)  # it is calibrated
    assert hand.clicks <= 8  # and no name is typed
    page.screenshot("eight-clicks")


def open_template(page: ComfyPage, hand: Hand, title: str) -> None:
    """Open a template of the pack through the template browser."""
    if page.page.get_by_role("dialog").count():  # newer versions open it on a first visit
        page.page.keyboard.press("Escape")
    hand.click(page.page.get_by_role("button", name="Templates").first)
    category = page.page.get_by_text(PACK).first
    category.wait_for()
    hand.click(category)
    card = page.page.get_by_text(title, exact=True).first
    card.wait_for()
    picture = page.page.get_by_alt_text(title).first
    assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
    hand.click(card)
    page.page.wait_for_function(
        "() => app.graph.nodes.some(n => n.comfyClass === 'NVFP4FoundrySaveCheckpoint')"
    )
    page.settle(1000)


@pytest.mark.parametrize(
    ("blueprint", "inside"),
    [
        ("Quantize a model file", "NVFP4FoundryQuantizeFile"),
        ("Calibrate and quantize", "NVFP4FoundryCalibrate"),
        ("Measure and mix", "NVFP4FoundryAutoMix"),
    ],
)
def test_blueprints_are_found_by_name_and_dropped_as_one_node(
    open_page: OpenPage, look: Look, blueprint: str, inside: str
) -> None:
    page = open_page(look)
    drop(page, blueprint)
    (node,) = page.page.evaluate(
        "() => app.graph.nodes.map(n => ({ title: n.title,"
        " inside: n.subgraph.nodes.map(m => m.comfyClass),"
        " widgets: n.widgets.map(w => w.name), inputs: n.inputs.map(i => i.name) }))"
    )
    assert node["title"] == blueprint and inside in node["inside"]
    assert "file_name" in node["widgets"]
    page.settle(1000)
    assert not page.page.get_by_text("missing").count()
    page.screenshot(f"blueprint-{blueprint}")


def drop(page: ComfyPage, blueprint: str) -> None:
    """Put a blueprint on an empty canvas."""
    page.settle(1500)  # blueprints are loaded after the page
    page.page.evaluate("() => app.graph.clear()")
    Hand(page).search(blueprint)


def test_the_blueprint_of_a_file_runs(open_page: OpenPage, look: Look, server: ComfyServer) -> None:
    clean(server)
    page = open_page(look)
    drop(page, "Quantize a model file")
    page.page.evaluate(
        "model => { const node = app.graph.nodes[0];"
        " node.widgets.find(w => w.name === 'model_file').value = model; }",
        MODEL,
    )
    run_by_keyboard(page)
    assert verify_checkpoint(saved(server), TINY).problems == ()


_BUILD = """([model, calibration]) => {
  const add = (type, values = {}) => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    for (const [name, value] of Object.entries(values)) {
      node.widgets.find(w => w.name === name).value = value;
    }
    return node;
  };
  const [outer] = app.graph.nodes;
  const to = (node, slot, input) => node.connect(slot, outer, outer.findInputSlot(input));
  to(add("NVFP4FoundryLoadSourceModel", { model_file: model }), 0, "model");
  to(add("DigitsTextEncoder"), 0, "clip");
  to(add("EmptyHunyuanLatentVideo", { width: 64, height: 64, length: 1 }), 0, "latent");
  if (calibration) {
    to(add("NVFP4FoundryLoadCalibration", { name: calibration }), 0, "calibration");
  }
  for (const [name, value] of Object.entries({ steps: 2, cfg: 2, limit: 2, prompts: 2 })) {
    const widget = outer.widgets.find(w => w.name === name);
    if (widget) widget.value = value;
  }
}"""


@pytest.mark.parametrize("blueprint", ["Calibrate and quantize", "Measure and mix"])
def test_the_larger_blueprints_run(
    open_page: OpenPage, look: Look, server: ComfyServer, blueprint: str
) -> None:
    clean(server)
    measuring = blueprint == "Measure and mix"
    calibration = calibrated(server) if measuring else None
    page = open_page(look, fresh=measuring)  # reads the list of calibrations
    drop(page, blueprint)
    page.page.evaluate(_BUILD, [MODEL, calibration])
    page.page.keyboard.press("Escape")
    run_by_keyboard(page)
    history = list(server.get("/history").values())[-1]
    assert history["status"]["status_str"] == "success", history["status"]
    assert verify_checkpoint(saved(server), TINY).problems == ()
    with safe_open(saved(server), "pt") as file:
        names = list(file.keys())
    assert any(name.endswith(".input_scale") for name in names)
    prompt = page.queued_prompt().values()
    (sampler,) = (node for node in prompt if node["class_type"] == "KSampler")
    assert sampler["inputs"]["steps"] == 2, "the blueprint's own widget counts"
    page.screenshot(f"blueprint-ran-{blueprint}")


TEMPLATES = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))


def test_templates_open_without_missing_nodes(open_page: OpenPage) -> None:
    page = open_page(Look("vue"))
    for template in TEMPLATES:
        workflow = page.page.evaluate(
            "async path => (await fetch(path)).json()",
            f"/api/workflow_templates/{quote(PACK)}/{quote(template)}.json",
        )
        page.load(workflow)
        page.settle(800)
        unknown = page.page.evaluate(
            "() => app.graph.nodes.filter(n => !n.comfyClass && !n.subgraph"
            " && !(n.type in LiteGraph.registered_node_types)).map(n => n.type)"
        )
        assert unknown == [], template
        text = page.page.locator("body").inner_text().lower()
        for words in ("missing node", "missing custom node", "node type", "unknown node"):
            assert words not in text, (template, words)
        page.page.keyboard.press("Escape")
        page.renew()
