"""Every node of the pack is found by its name in the search of ComfyUI's page."""

from __future__ import annotations

from tests.comfyui.browser.comfy_page import Look
from tests.comfyui.browser.conftest import OpenPage


def test_every_node_is_dragged_in_from_the_search(open_page: OpenPage, look: Look) -> None:
    page = open_page(look)
    known = page.server.get("/object_info")
    ours = {key: node for key, node in known.items() if key.startswith("NVFP4Foundry")}
    assert len(ours) >= 20
    for key, node in ours.items():
        page.clear()
        assert page.new_node(node["display_name"]) == key
    page.screenshot("search-last-node")
