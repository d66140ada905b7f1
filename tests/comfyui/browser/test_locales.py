"""The nodes in other languages, and the help page of a node."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.comfyui.browser.comfy_page import Look
from tests.comfyui.browser.conftest import OpenPage
from tests.comfyui.browser.workflows import PLAN, PRESET, plan_workflow
from tests.comfyui.comfy_python import ComfyUI
from tests.comfyui.comfy_server import ROOT, ComfyServer, make_base

_TEXTS = (
    "() => window.app.graph.nodes.map(n => [n.comfyClass, n.constructor.title,"
    " n.constructor.category, Object.fromEntries((n.widgets ?? []).map(w => [w.name, w.label])),"
    " n.outputs.map(o => o.localized_name)])"
)


@pytest.fixture(scope="module")
def server(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A ComfyUI with the pack in a folder without a dot: the page finds no help in others."""
    base = make_base(tmp_path_factory.mktemp("comfyui") / "base")
    (pack,) = (base / "custom_nodes").glob("nvfp4-foundry*")
    pack.rename(pack.with_name("nvfp4-foundry"))
    running = ComfyServer(comfyui.python, comfyui.path, base)
    running.start()
    yield running
    running.stop()


@pytest.mark.parametrize("locale", ("en", "zh", "ja"))
def test_the_nodes_are_translated(
    open_page: OpenPage, server: ComfyServer, look: Look, locale: str
) -> None:
    folder = ROOT / "locales" / locale
    nodes = json.loads((folder / "nodeDefs.json").read_text("utf-8"))
    menus = json.loads((folder / "main.json").read_text("utf-8"))["nodeCategories"]
    server.post("/settings/Comfy.Locale", locale)
    page = open_page(look, fresh=True)  # the language is read once
    page.load(plan_workflow())
    page.set_widget(PRESET, "preset", "smart")
    shown = {name: rest for name, *rest in page.page.evaluate(_TEXTS) if name in nodes}
    assert len(shown) >= 3
    for name, (title, category, widgets, outputs) in shown.items():
        node = nodes[name]
        assert title == node["display_name"]
        assert category.split("/")[1] in menus.values()
        keys = [key for key in widgets if key.replace(".", "_") in node["inputs"]]
        assert [widgets[key] for key in keys] == [
            node["inputs"][key.replace(".", "_")]["name"] for key in keys
        ]
        if name != "NVFP4FoundryLoadSourceModel":  # the page names MODEL after its type
            assert outputs == [output["name"] for output in node["outputs"].values()]
    assert "preset.edge_blocks" in shown["NVFP4FoundrySelectPreset"][2]
    page.screenshot(f"locale-{locale}")


def test_the_help_page_opens(open_page: OpenPage, server: ComfyServer, look: Look) -> None:
    server.post("/settings/Comfy.Locale", "en")
    page = open_page(look, fresh=True)  # the language is read once
    page.expected.append("/en.md")  # it looks for a translated help page first
    page.load(plan_workflow())
    page.page.evaluate("id => window.app.canvas.selectNode(window.app.graph.getNodeById(id))", PLAN)
    page.page.get_by_test_id("info-button").first.evaluate("button => button.click()")
    page.page.get_by_role("heading", name="Edit the plan on the map").wait_for()
    page.screenshot("help")
