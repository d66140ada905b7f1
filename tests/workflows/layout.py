"""Where the nodes of a workflow go: a note, then groups from left to right, each in columns."""

from __future__ import annotations

from typing import Any

from tests.workflows.graph import Graph, identity, links_of, ui_node

_GAP = 60
_HEADER = 34  # a node's title lies above its position
_TITLE = 70
_MARGIN = 30
_NOTE_WIDTH = 420


def place(graph: Graph) -> list[dict[str, Any]]:
    """Give every node its position; return the groups of the UI form."""
    left, boxes = _NOTE_WIDTH + 2 * _GAP, []
    for number, group in enumerate(graph.groups, 1):
        x, bottom = left + _MARGIN, 0
        for column in group.columns:
            y = _TITLE + _HEADER
            for node in column:
                node.position = (x, y)
                y += node.size[1] + _HEADER + _GAP
            bottom = max(bottom, y)
            x += max(node.size[0] for node in column) + _GAP
        box = [left, 0, x - _GAP + _MARGIN - left, bottom]
        head = {"id": number, "title": group.title, "bounding": box}
        boxes.append({**head, "color": group.color, "font_size": 24, "flags": {}})
        left = box[0] + box[2] + _GAP
    return boxes


def to_ui(graph: Graph) -> dict[str, Any]:
    """Return the UI form, which the browser opens."""
    groups = place(graph)
    nodes = graph.nodes
    links = links_of(nodes)
    note = _note(graph, max(node.id for node in nodes) + 1)
    return {
        "id": identity(graph.title),
        "revision": 0,
        "last_node_id": note["id"],
        "last_link_id": len(links),
        "nodes": [note, *(ui_node(node, links, order) for order, node in enumerate(nodes, 1))],
        "links": links,
        "groups": groups,
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _note(graph: Graph, number: int) -> dict[str, Any]:
    lines = sum(1 + len(line) // 44 for line in graph.note.splitlines())
    return {
        "id": number,
        "type": "MarkdownNote",
        "pos": [0, _HEADER],
        "size": [_NOTE_WIDTH, 90 + 24 * lines],
        "flags": {},
        "order": 0,
        "mode": 0,
        "title": graph.title,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [graph.note],
        "color": "#243447",
        "bgcolor": "#1b2836",
    }
