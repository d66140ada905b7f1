"""A subgraph blueprint: a workflow inside one node, in the form of ComfyUI's blueprints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.workflows.graph import Graph, Link, Node, identity, links_of, ui_node
from tests.workflows.layout import place

_INPUT, _OUTPUT = -10, -20  # the ids of the boundary in ComfyUI's format
_CATEGORY = "NVFP4 Foundry"
_WIDTH = 440
_ROW = 28


@dataclass(frozen=True)
class Port:
    """An input of the subgraph: the inputs inside that it feeds, and the label it has outside."""

    name: str
    label: str
    targets: tuple[tuple[Node, str], ...]

    @property
    def slots(self) -> list[tuple[Node, int]]:
        """Return the targets as slots."""
        return [(node, _slot(node, name)) for node, name in self.targets]

    @property
    def type(self) -> str:
        """Return the type of its first target."""
        node, slot = self.slots[0]
        return "MODEL" if self.name == "model" else list(node.inputs())[slot].type

    @property
    def is_widget(self) -> bool:
        """Whether it is a widget outside too."""
        node, slot = self.slots[0]
        return list(node.inputs())[slot].widget


@dataclass
class Blueprint:
    """A subgraph with its ports. ``choices`` are dynamic widgets that are shown outside too."""

    graph: Graph
    description: str
    aliases: tuple[str, ...]
    ports: list[Port] = field(default_factory=list)
    outputs: list[tuple[str, Link]] = field(default_factory=list)
    choices: list[tuple[Node, str]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Return the name, which is also that of the file."""
        return self.graph.title

    def port(self, name: str, *targets: tuple[Node, str], label: str = "") -> None:
        """Add an input of the subgraph."""
        self.ports.append(Port(name, label or name.replace("_", " "), targets))


def to_blueprint(blueprint: Blueprint) -> dict[str, Any]:
    """Return the file of a blueprint: one node, and the definition of its subgraph."""
    groups = place(blueprint.graph)
    nodes = blueprint.graph.nodes
    outer = _outer(blueprint, max(node.id for node in nodes) + 1)
    return {
        "revision": 0,
        "last_node_id": outer["id"],
        "last_link_id": 0,
        "nodes": [outer],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [_definition(blueprint, groups, outer["id"])]},
        "extra": {
            "BlueprintDescription": blueprint.description,
            "BlueprintSearchAliases": list(blueprint.aliases),
        },
    }


def _outer(blueprint: Blueprint, number: int) -> dict[str, Any]:
    inputs = [
        {
            "label": port.label,
            "name": port.name,
            "type": port.type,
            **({"widget": {"name": port.name}} if port.is_widget else {}),
            "link": None,
        }
        for port in blueprint.ports
    ]
    outputs = [{"name": name, "type": link.type, "links": []} for name, link in blueprint.outputs]
    widgets = [
        [str(port.targets[0][0].id), port.targets[0][1]]
        for port in blueprint.ports
        if port.is_widget
    ]
    widgets += [[str(node.id), name] for node, name in blueprint.choices]
    sockets = max(sum(not port.is_widget for port in blueprint.ports), len(outputs))
    return {
        "id": number,
        "type": identity(blueprint.title),
        "pos": [0, 0],
        "size": [_WIDTH, 40 + 22 * sockets + _ROW * len(widgets)],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": inputs,
        "outputs": outputs,
        "properties": {"proxyWidgets": widgets, "cnr_id": "nvfp4-foundry"},
        "widgets_values": [],
        "title": blueprint.title,
    }


def _definition(
    blueprint: Blueprint, groups: list[dict[str, Any]], last_node: int
) -> dict[str, Any]:
    graph = blueprint.graph
    links = links_of(graph.nodes)
    fed = _fed(blueprint, links)
    given = _given(blueprint, links)
    right = max(box["bounding"][0] + box["bounding"][2] for box in groups)
    return {
        "id": identity(blueprint.title),
        "version": 1,
        "state": {
            "lastGroupId": len(groups),
            "lastNodeId": last_node,
            "lastLinkId": len(links),
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": blueprint.title,
        "inputNode": {"id": _INPUT, "bounding": [0, 100, 160, 40 + 20 * len(fed)]},
        "outputNode": {"id": _OUTPUT, "bounding": [right + 120, 100, 160, 40 + 20 * len(given)]},
        "inputs": fed,
        "outputs": given,
        "widgets": [],
        "nodes": [ui_node(node, links, order) for order, node in enumerate(graph.nodes)],
        "groups": groups,
        "links": [_link(link) for link in links],
        "extra": {},
        "category": _CATEGORY,
        "description": blueprint.description,
    }


def _fed(blueprint: Blueprint, links: list[list[Any]]) -> list[dict[str, Any]]:
    """Add the links from the input node; return the inputs of the definition."""
    found = []
    for number, port in enumerate(blueprint.ports):
        ids = []
        for node, slot in port.slots:
            ids.append(len(links) + 1)
            links.append([ids[-1], _INPUT, number, node.id, slot, port.type])
        head = {"id": identity(f"{blueprint.title}/in/{port.name}"), "name": port.name}
        place_ = [140, 120 + 20 * number]
        found.append(
            {**head, "type": port.type, "linkIds": ids, "label": port.label, "pos": place_}
        )
    return found


def _given(blueprint: Blueprint, links: list[list[Any]]) -> list[dict[str, Any]]:
    """Add the links to the output node; return the outputs of the definition."""
    found = []
    for number, (name, link) in enumerate(blueprint.outputs):
        links.append([len(links) + 1, link.node.id, link.slot, _OUTPUT, number, link.type])
        head = {"id": identity(f"{blueprint.title}/out/{name}"), "name": name, "type": link.type}
        found.append({**head, "linkIds": [len(links)], "pos": [0, 120 + 20 * number]})
    return found


def _link(link: list[Any]) -> dict[str, Any]:
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return dict(zip(names, link, strict=True))


def _slot(node: Node, name: str) -> int:
    return [entry.name for entry in node.inputs()].index(name)
