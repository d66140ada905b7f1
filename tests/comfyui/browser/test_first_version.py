"""Workflows that the first version saved open without missing nodes, with their values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui.browser.comfy_page import ComfyPage, Look
from tests.comfyui.browser.conftest import OpenPage

FIRST_VERSION = Path(__file__).with_name("first_version")
CLASSIC = Look("classic")


def saved(name: str) -> dict[str, Any]:
    """Read a workflow of the first version."""
    return json.loads((FIRST_VERSION / f"{name}.json").read_text(encoding="utf-8"))


def nodes(page: ComfyPage) -> dict[str, dict[str, Any]]:
    """Return class, values and linked inputs of all nodes by id."""
    return page.page.evaluate(
        "() => Object.fromEntries(window.app.rootGraph.nodes.map(n => [String(n.id), {"
        " type: n.type, known: Boolean(n.comfyClass),"
        " values: Object.fromEntries((n.widgets ?? []).map(w => [w.name, w.value])),"
        " linked: n.inputs.filter(i => i.link != null).map(i => i.name),"
        " given: n.outputs.map(o => (o.links ?? []).length) }]))"
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in FIRST_VERSION.glob("*.json")))
def test_a_saved_workflow_opens(open_page: OpenPage, name: str) -> None:
    page = open_page(CLASSIC)
    workflow = saved(name)
    page.load(workflow)
    page.screenshot(f"first-version-{name}")
    now = nodes(page)
    assert len(now) == len(workflow["nodes"])
    for node in workflow["nodes"]:
        if not node["type"].startswith("NVFP4Foundry"):
            continue
        found = now[str(node["id"])]
        assert found["known"], found
        linked = [i["name"] for i in node["inputs"] if i.get("link") is not None]
        assert len(found["linked"]) == len(linked), (node["type"], found["linked"], linked)
        gone = {"short samplings"}  # modes that there are no more
        texts = [
            v
            for v in node.get("widgets_values") or []
            if isinstance(v, str) and v and v not in gone
        ]
        for text in texts:
            assert text in found["values"].values(), (node["type"], text, found["values"])
    if name == "measure_and_mix":
        mix = next(n for n in now.values() if n["type"] == "NVFP4FoundryAutoMix")
        assert "nvfp4" in mix["values"]["formats"]


def test_nodes_inside_a_subgraph_are_brought_up_to_date(open_page: OpenPage) -> None:
    workflow = saved("quantize_file")
    page = open_page(CLASSIC)
    replaced = page.page.evaluate(
        "async workflow => { const { migrateWorkflow } ="
        " await import([...document.scripts].length >= 0 && (await (await fetch('/extensions'))"
        ".json()).find(p => p.endsWith('/comfy/migrations.js')));"
        " const migrations = await (await fetch('/nvfp4_foundry/migrations')).json();"
        " const graph = { nodes: [], definitions: { subgraphs: [{ id: 's', nodes: ["
        "   { id: 1, type: 'NVFP4FoundryLoadModel', inputs: [], widgets_values: ['a', 'b'] }"
        " ] }] } };"
        " migrateWorkflow(graph, migrations);"
        " return graph.definitions.subgraphs[0].nodes[0]; }",
        workflow,
    )
    assert replaced["type"] == "NVFP4FoundryLoadSourceModel"
    values = replaced["properties"]["nvfp4_migrated_values"]
    assert values == {"model_file": "a", "complete_from": "b"}
