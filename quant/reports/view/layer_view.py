"""The one compact object that a node, an HTML page and a model card show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..messages import Message
from .layer_columns import LayerColumns, containers_of
from .measures import Measure

VERSION = 1

ViewKind = Literal[
    "plan", "calibration", "conversion", "checkpoint", "sensitivity", "mix", "text"
]  # fmt: skip
Tone = Literal["", "good", "bad"]
#: Errors by format and measure, one value per layer.
Errors = Mapping[str, Mapping[str, Sequence[float | None]]]


@dataclass(frozen=True)
class Tile:
    """One number of the summary, with its label."""

    label: str
    value: str
    detail: str = ""
    tone: Tone = ""

    def to_json(self) -> dict[str, str]:
        """Return JSON-serialisable data, without empty entries."""
        entries = {"label": self.label, "value": self.value}
        entries |= {"detail": self.detail} if self.detail else {}
        return entries | ({"tone": self.tone} if self.tone else {})


@dataclass(frozen=True)
class LayerView:
    """A result, ready to be shown. The JSON is documented in ``web/view/``.

    ``text`` is the report as plain text. ``errors``, ``inputs``, ``edit`` and ``frontier`` are
    JSON-serialisable already; None leaves them out. All texts are untrusted: layer names come
    from files.
    """

    kind: ViewKind
    title: str
    text: str
    tiles: tuple[Tile, ...] = ()
    messages: tuple[Message, ...] = ()
    layers: LayerColumns | None = None
    measures: tuple[Measure, ...] = ()
    errors: Mapping[str, Any] | None = None
    inputs: Mapping[str, Any] | None = None
    edit: Mapping[str, Any] | None = None
    frontier: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data without NaN or infinity."""
        containers = containers_of(self.layers.positions) if self.layers else {}
        data: dict[str, Any] = {
            "version": VERSION,
            "kind": self.kind,
            "title": self.title,
            "tiles": [tile.to_json() for tile in self.tiles],
            "messages": [{"level": m.level, "text": m.text} for m in self.messages],
            "text": self.text,
            "containers": [{"name": name, "count": n} for name, n in containers.items()],
            "measures": [measure.to_json() for measure in self.measures],
        }
        if self.layers is not None:
            data["layers"] = self.layers.to_json(tuple(containers))
        for name in ("errors", "inputs", "edit", "frontier"):
            part = getattr(self, name)
            if part is not None:
                data[name] = dict(part)
        return data

    def dumps(self) -> str:
        """Return `to_json` as text, as short as JSON can be."""
        return json.dumps(self.to_json(), separators=(",", ":"), allow_nan=False)


def with_notes(notes: Sequence[str], text: str) -> str:
    """Return a text report that begins with notes, one line each."""
    return "\n".join([*notes, text])
