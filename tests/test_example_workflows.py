"""The shipped workflows: what the browser opens is what the tests run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "example_workflows"
NAMES = sorted(path.stem for path in (FOLDER / "api").glob("*.json"))
# Titles, notes and reroutes belong to the picture, not to what runs.
DECORATION = {"MarkdownNote", "Note", "Reroute"}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_workflow_has_both_forms() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES
    assert len(NAMES) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_have_the_same_nodes_links_and_values(name: str) -> None:
    api, graph = read(FOLDER / "api" / f"{name}.json"), read(FOLDER / f"{name}.json")
    nodes = {str(n["id"]): n for n in graph["nodes"] if n["type"] not in DECORATION}
    assert {k: n["type"] for k, n in nodes.items()} == {k: n["class_type"] for k, n in api.items()}

    links = {link[0]: (str(link[1]), link[2]) for link in graph["links"]}
    for key, entry in api.items():
        linked = {k: tuple(v) for k, v in entry["inputs"].items() if isinstance(v, list)}
        drawn = {i["name"]: links[i["link"]] for i in nodes[key]["inputs"] if i["link"] is not None}
        assert drawn == linked, key
        for field, value in entry["inputs"].items():
            if not isinstance(value, list):
                assert value in nodes[key]["widgets_values"], f"{key}.{field}"
