"""A workflow as a value: nodes in columns and groups, written in both forms of ComfyUI."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.workflows.kinds import Input, Kind, load_kinds

KINDS = load_kinds()
_WIDGET_SHAPE = 7  # what ComfyUI writes for an optional input
_OURS = "NVFP4Foundry"
#: Nodes that show a report with a layer view, and those that show text or pictures.
_VIEWS = {"PlanLayers", "CalibrationResult", "QuantizeModel", "MeasureSensitivity", "ProbeResult",
          "AutoMix", "QuantizeFile", "SaveCheckpoint"}  # fmt: skip
#: Nodes with a panel that shows the progress of what they observe.
_LIVE = {"Calibrate", "ProbeLatentShift"}
_REPORTS = {"SelectPreset", "CompareSamples"}
_PICTURES = {"LoadImage", "SaveImage", "SaveVideo", "PreviewImage"}
#: An output whose type follows an input; all templates connect a MODEL there.
_FOLLOWS = "COMFY_MATCHTYPE_V3"


@dataclass(frozen=True)
class Link:
    """An output of a node, to connect to inputs."""

    node: Node
    slot: int

    @property
    def type(self) -> str:
        """Return the type of what flows."""
        return _shown_type(self.node.kind.outputs[self.slot][1])


@dataclass(frozen=True)
class Model:
    """A model file that a node loads: where to get it and the folder it belongs to."""

    name: str
    url: str
    directory: str


@dataclass(eq=False)
class Node:
    """A node with its values: constants of widgets, and links of sockets."""

    id: int
    kind: Kind
    values: dict[str, Any]
    title: str = ""
    models: tuple[Model, ...] = ()
    position: tuple[int, int] = (0, 0)

    def __getitem__(self, output: str) -> Link:
        names = [name for name, _ in self.kind.outputs]
        return Link(self, names.index(output))

    def inputs(self) -> Iterator[Input]:
        """Yield the inputs in their order, with those that dynamic widgets add."""
        for entry in self.kind.inputs:
            yield from entry.chosen(self.values)

    def value(self, entry: Input) -> Any:
        """Return the constant of a widget.

        Raises:
            KeyError: it has neither a value nor a default.
        """
        if entry.name in self.values:
            return self.values[entry.name]
        if entry.default is not None:
            return entry.default
        if entry.type == "STRING":
            return ""
        if entry.optional and entry.type == "COMBO":
            return "default"  # the device of text encoder loaders
        raise KeyError(f"{self.kind.name}.{entry.name} needs a value")

    @property
    def size(self) -> tuple[int, int]:
        """Return its width and the height it needs, a report included."""
        entries = list(self.inputs())
        widgets = [e for e in entries if e.widget and not isinstance(self.values.get(e.name), Link)]
        sockets = max(sum(not e.widget for e in entries), len(self.kind.outputs))
        height = 46 + 22 * sockets + sum(130 if e.multiline else 28 for e in widgets)
        name = self.kind.name.removeprefix(_OURS)
        if name in _VIEWS:
            return 580, height + 470
        if name in _REPORTS:
            return 420, height + 240
        if name in _LIVE:
            return 420, height + 170
        if name in _PICTURES:
            return 420, height + 300
        return (420 if name != self.kind.name or any(e.multiline for e in widgets) else 320), height


@dataclass
class Group:
    """A titled box around columns of nodes."""

    title: str
    color: str
    columns: list[list[Node]] = field(default_factory=list)


@dataclass
class Graph:
    """A workflow under construction. Nodes are added to the newest column."""

    title: str
    note: str
    groups: list[Group] = field(default_factory=list)

    @property
    def nodes(self) -> list[Node]:
        """Return all nodes, in the order they were added."""
        found = [n for group in self.groups for column in group.columns for n in column]
        return sorted(found, key=lambda node: node.id)

    def group(self, title: str, color: str) -> None:
        """Begin a group with its first column."""
        self.groups.append(Group(f"{len(self.groups) + 1}  {title}", color, [[]]))

    def column(self) -> None:
        """Begin another column in the newest group."""
        self.groups[-1].columns.append([])

    def node(
        self, kind: str, title: str = "", models: tuple[Model, ...] = (), /, **values: Any
    ) -> Node:
        """Add a node; a ``Link`` connects a socket, anything else is the value of a widget.

        Dots in the names of dynamic inputs are written as two underscores.
        """
        number = 1 + sum(len(column) for group in self.groups for column in group.columns)
        kind_ = KINDS[kind if kind in KINDS else _OURS + kind]
        named = {name.replace("__", "."): value for name, value in values.items()}
        node = Node(number, kind_, named, title, models)
        if unknown := set(named) - {entry.name for entry in node.inputs()}:
            raise KeyError(f"{kind} has no inputs {sorted(unknown)}")
        self.groups[-1].columns[-1].append(node)
        return node


def to_api(graph: Graph) -> dict[str, Any]:
    """Return the API form, which runs without a browser."""
    found = {}
    for node in graph.nodes:
        inputs = {}
        for entry in node.inputs():
            value = node.values.get(entry.name)
            if isinstance(value, Link):
                inputs[entry.name] = [str(value.node.id), value.slot]
            elif entry.widget:
                inputs[entry.name] = node.value(entry)
        found[str(node.id)] = {
            "class_type": node.kind.name,
            "inputs": inputs,
            **({"_meta": {"title": node.title}} if node.title else {}),
        }
    return found


def links_of(nodes: list[Node]) -> list[list[Any]]:
    """Return the links between nodes: id, origin and its slot, target and its slot, type."""
    found: list[list[Any]] = []
    for node in nodes:
        for slot, entry in enumerate(node.inputs()):
            value = node.values.get(entry.name)
            if isinstance(value, Link):
                ends = [value.node.id, value.slot, node.id, slot, value.type]
                found.append([len(found) + 1, *ends])
    return found


def ui_node(node: Node, links: list[list[Any]], order: int) -> dict[str, Any]:
    """Return a node of the UI form."""
    incoming = {(link[3], link[4]): link[0] for link in links}
    inputs = []
    for slot, entry in enumerate(node.inputs()):
        shape = {"shape": _WIDGET_SHAPE} if entry.optional else {}
        widget = {"widget": {"name": entry.name}} if entry.widget else {}
        head = {"name": entry.name, **shape, "type": entry.type, **widget}
        inputs.append({**head, "link": incoming.get((node.id, slot))})
    outputs = [
        {
            "name": name,
            "type": _shown_type(kind),
            "links": [li[0] for li in links if li[1:3] == [node.id, slot]] or None,
        }
        for slot, (name, kind) in enumerate(node.kind.outputs)
    ]
    pack = "nvfp4-foundry" if node.kind.name.startswith(_OURS) else "comfy-core"
    properties: dict[str, Any] = {"cnr_id": pack, "Node name for S&R": node.kind.name}
    if node.models:
        properties["models"] = [vars(model) for model in node.models]
    return {
        "id": node.id,
        "type": node.kind.name,
        "pos": list(node.position),
        "size": list(node.size),
        "flags": {},
        "order": order,
        "mode": 0,
        **({"title": node.title} if node.title else {}),
        "inputs": inputs,
        "outputs": outputs,
        "properties": properties,
        "widgets_values": list(_widgets_values(node)),
    }


def _widgets_values(node: Node) -> Iterator[Any]:
    for entry in node.inputs():
        if entry.widget:
            linked = isinstance(node.values.get(entry.name), Link)
            yield "" if linked else node.value(entry)
            if entry.seed:
                yield "fixed"
            if entry.upload:
                yield "image"


def _shown_type(kind: str) -> str:
    return "MODEL" if kind == _FOLLOWS else kind


def identity(name: str) -> str:
    """Return a UUID that is always the same for a name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"nvfp4-foundry/{name}"))
