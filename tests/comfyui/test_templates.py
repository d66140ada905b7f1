"""The templates and blueprints against a real ComfyUI: nodes, inputs, pictures."""

from __future__ import annotations

import urllib.request
from urllib.parse import quote

import pytest

from tests.comfyui.comfy_server import ComfyServer
from tests.workflows.kinds import SNAPSHOT, described, load_kinds, snapshot_text
from tests.workflows.write import BLUEPRINTS, TEMPLATES

TITLES = [template().title for template in TEMPLATES]
#: Stock nodes whose inputs differ between the versions of ComfyUI, with what stays the same.
DIFFER = {"SaveVideo": {"video", "filename_prefix", "format", "codec"}}


def test_the_inputs_of_the_nodes_are_those_of_comfyui(server: ComfyServer) -> None:
    """After a change: write the text that this test compares to ``kinds.json``."""
    info = server.get("/object_info")
    names = [name for name in load_kinds() if name not in DIFFER]
    found, kept = described(info, names), load_kinds()
    for name, kind in found.items():
        assert [e["name"] for e in kind["inputs"]] == [e.name for e in kept[name].inputs], name
    ours = {name: kind for name, kind in found.items() if name.startswith("NVFP4Foundry")}
    text = SNAPSHOT.read_text(encoding="utf-8")
    for name, kind in ours.items():
        assert snapshot_text({name: kind})[2:-3] in text, name
    for name, inputs in DIFFER.items():
        groups = info[name]["input"]
        assert {*groups["required"], *groups.get("optional", {})} == inputs


def test_no_node_of_a_template_is_missing_on_a_stock_install(server: ComfyServer) -> None:
    listed = server.get("/object_info")
    for template in TEMPLATES:
        assert {node.kind.name for node in template().nodes} <= set(listed)


def test_templates_are_listed_with_their_pictures(server: ComfyServer) -> None:
    (titles,) = server.get("/workflow_templates").values()
    assert sorted(titles) == sorted(TITLES)


@pytest.mark.parametrize("title", TITLES)
def test_files_and_pictures_are_served(server: ComfyServer, title: str) -> None:
    (pack,) = server.get("/workflow_templates")
    base = f"http://127.0.0.1:{server.port}/api/workflow_templates/{quote(pack)}/{quote(title)}"
    for ending, kind in (("json", "application/json"), ("jpg", "image/jpeg")):
        with urllib.request.urlopen(f"{base}.{ending}", timeout=30) as reply:
            assert reply.headers["Content-Type"] == kind and reply.read()


def test_blueprints_are_listed(server: ComfyServer) -> None:
    listed = server.get("/global_subgraphs").values()
    ours = {entry["name"] for entry in listed if entry["source"] == "custom_node"}
    assert ours == {blueprint().title for blueprint in BLUEPRINTS}
