"""The shipped workflows: what the browser opens is what the tests run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.workflows.write import ROOT, written

FOLDER = ROOT / "example_workflows"
NAMES = sorted(path.stem for path in (FOLDER / "api").glob("*.json"))
# Titles, notes and reroutes belong to the picture, not to what runs.
DECORATION = {"MarkdownNote", "Note", "Reroute"}
LARGEST_PICTURE = 60_000


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def boxes(graph: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """Return the boxes of the nodes with their titles above them."""
    return [
        (n["type"], [n["pos"][0], n["pos"][1] - 30, n["size"][0], n["size"][1] + 30])
        for n in graph["nodes"]
    ]


def inside(inner: list[int], outer: list[int]) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and inner[0] + inner[2] <= outer[0] + outer[2]
        and inner[1] + inner[3] <= outer[1] + outer[3]
    )


def overlap(a: list[int], b: list[int]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def test_the_files_are_what_the_descriptions_say() -> None:
    """After a change: ``python -m tests.workflows.write``."""
    files = written()
    for name, text in files.items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, name
    for folder in ("example_workflows", "example_workflows/api", "subgraphs"):
        found = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob("*.json")}
        assert found == {name for name in files if str(Path(name).parent) == folder}


def test_every_workflow_has_both_forms_and_a_picture() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES
    # the template browser asks for a .jpg of the same name
    assert sorted(path.stem for path in FOLDER.glob("*.jpg")) == NAMES
    assert len(NAMES) >= 3


def test_names_are_titles_that_work_in_addresses() -> None:
    for name in NAMES:
        assert name[0].isupper() and not set(name) & set("#?%/_&+"), name


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_is_small_and_square(name: str) -> None:
    path = FOLDER / f"{name}.jpg"
    assert path.stat().st_size < LARGEST_PICTURE
    with Image.open(path) as picture:
        assert picture.format == "JPEG" and picture.width == picture.height >= 400


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


@pytest.mark.parametrize("name", NAMES)
def test_nodes_lie_in_groups_and_do_not_overlap(name: str) -> None:
    graph = read(FOLDER / f"{name}.json")
    groups = [group["bounding"] for group in graph["groups"]]
    found = boxes(graph)
    for number, (kind, box) in enumerate(found):
        assert kind == "MarkdownNote" or sum(inside(box, group) for group in groups) == 1, kind
        assert not any(overlap(box, other) for _, other in found[number + 1 :]), kind
    assert not any(overlap(a, b) for i, a in enumerate(groups) for b in groups[i + 1 :])


@pytest.mark.parametrize("name", NAMES)
def test_a_note_says_what_it_does_in_three_steps(name: str) -> None:
    graph = read(FOLDER / f"{name}.json")
    (note,) = (n["widgets_values"][0] for n in graph["nodes"] if n["type"] == "MarkdownNote")
    assert note.startswith(f"# {name}\n")
    assert [line[:2] for line in note.splitlines() if line[:1].isdigit()] == ["1.", "2.", "3."]


@pytest.mark.parametrize("name", NAMES)
def test_models_are_linked_where_they_are_loaded(name: str) -> None:
    for node in read(FOLDER / f"{name}.json")["nodes"]:
        for model in node["properties"].get("models", ()):
            assert any(str(v).endswith(model["name"]) for v in node["widgets_values"])
            assert model["url"].startswith("https://huggingface.co/")
            assert model["url"].endswith(f"/{model['name']}")
