"""A file that a node saved is offered by the stock loader at once; a deleted one is made again."""

from __future__ import annotations

from tests.comfyui.browser.comfy_page import ComfyPage, Look
from tests.comfyui.browser.conftest import OpenPage
from tests.comfyui.browser.workflows import file_workflow

FILE, LOADER = 1, 2


def offered(page: ComfyPage) -> list[str]:
    """Return the files that the stock loader offers."""
    return page.page.evaluate(
        "id => window.app.graph.getNodeById(id).widgets[0].options.values", LOADER
    )


def test_the_stock_loader_offers_a_saved_file(open_page: OpenPage, look: Look) -> None:
    page = open_page(look)
    name = f"browser_{look.renderer}"
    page.load(file_workflow(name))
    page.run()
    assert page.eventually(lambda: f"{name}.safetensors" in offered(page))
    page.show(0, 0)
    page.screenshot("saved")
    target = page.server.base / "models" / "diffusion_models" / f"{name}.safetensors"
    made = target.stat().st_mtime_ns
    target.unlink()
    page.run()
    assert target.stat().st_mtime_ns != made
    assert page.status(FILE) == ""
