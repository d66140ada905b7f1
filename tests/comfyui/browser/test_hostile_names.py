"""Layer names come from files: they are shown as text, whatever they hold."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import save_file

from tests.comfyui.browser.comfy_page import Look
from tests.comfyui.browser.conftest import OpenPage
from tests.comfyui.browser.workflows import inspect_workflow
from tests.comfyui.comfy_server import ComfyServer

NODE = 1
TAG = '<img src=x onerror="window.hostile = 1">'
NAMES = {
    f"blocks.0.{TAG}": TAG,
    "blocks.0.\u001b[31mred\u001b[0m": "\\x1b[31mred",
    "blocks.1.\u202egnp.reversed": "\\u202egnp.reversed",
    "blocks.1.<script>window.hostile = 2</script>": "<script>window.hostile = 2</script>",
}


def save_hostile(server: ComfyServer) -> str:
    """Save a model with such names; return its name in the node's menu."""
    weight = np.zeros((32, 32), dtype=np.float16)
    tensors = {f"{name}.weight": weight for name in [*NAMES, "blocks.0.attn.to_q"]}
    save_file(tensors, server.base / "models" / "diffusion_models" / "hostile.safetensors")
    return "diffusion_models/hostile.safetensors"


def test_hostile_names_are_text(open_page: OpenPage, look: Look, server: ComfyServer) -> None:
    name = save_hostile(server)
    page = open_page(look, fresh=True)  # reads the list of files
    page.load(inspect_workflow(name))
    page.run()
    assert page.problem(NODE) == ""
    page.show_node(NODE)
    report = page.report(NODE)
    report.locator(".nv-canvas").first.wait_for()
    report.get_by_role("tab", name="Table").click()
    table = report.locator(".nv-for-table")
    for text in NAMES.values():
        assert text in (table.text_content() or ""), text
    table.get_by_text(TAG).first.click()  # opens the details
    page.screenshot("hostile-names")
    report.get_by_role("tab", name="Text").click()
    assert TAG in (report.locator(".nv-for-text").text_content() or "")
    page.reload()
    report.locator(".nv-tiles").wait_for()
    raw = report.evaluate("element => element.textContent")
    assert "\u202e" not in raw and "\u001b" not in raw
    assert report.locator("img, script").count() == 0
    assert page.page.evaluate("() => window.hostile") is None
