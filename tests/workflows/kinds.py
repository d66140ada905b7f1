"""What ComfyUI says about the nodes that the templates use: their inputs and outputs, in order.

``kinds.json`` holds it, so that templates can be written without ComfyUI;
``tests/comfyui/test_templates.py`` compares it with a real ComfyUI.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SNAPSHOT = Path(__file__).with_name("kinds.json")
_WIDGETS = {"NVFP4_FORMATS", "INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
_DYNAMIC = "COMFY_DYNAMICCOMBO_V3"


@dataclass(frozen=True)
class Input:
    """An input: a socket, or a widget that is also a socket.

    ``options`` are the inputs that each choice of a dynamic widget adds.
    """

    name: str
    type: str
    widget: bool = False
    optional: bool = False
    default: Any = None
    seed: bool = False
    upload: bool = False
    multiline: bool = False
    options: Mapping[str, tuple[Input, ...]] | None = None

    def chosen(self, values: Mapping[str, Any]) -> Iterator[Input]:
        """Yield this input and those that its value adds, under their full names."""
        yield self
        if self.options is None:
            return
        for added in self.options.get(values.get(self.name, self.default), ()):
            named = replace(added, name=f"{self.name}.{added.name}")
            yield from named.chosen(values)


@dataclass(frozen=True)
class Kind:
    """A class of nodes. Outputs are pairs of a name and a type."""

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[tuple[str, str], ...]


def load_kinds() -> dict[str, Kind]:
    """Read the snapshot."""
    data = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    return {
        name: Kind(
            name,
            tuple(_input(entry) for entry in kind["inputs"]),
            tuple((output[0], output[1]) for output in kind["outputs"]),
        )
        for name, kind in data.items()
    }


def described(object_info: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the snapshot of some classes, from the reply of ``/object_info``."""
    return {name: _described(object_info[name]) for name in sorted(names)}


def _described(info: Mapping[str, Any]) -> dict[str, Any]:
    outputs = [list(pair) for pair in zip(info["output_name"], info["output"], strict=True)]
    return {"inputs": list(_inputs(info["input"])), "outputs": outputs}


def _inputs(groups: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for group in ("required", "optional"):
        for name, spec in groups.get(group, {}).items():
            yield {"name": name, **({"optional": True} if group == "optional" else {}), **_of(spec)}


def _of(spec: list[Any]) -> dict[str, Any]:
    details = spec[1] if len(spec) > 1 else {}
    kind = "COMBO" if isinstance(spec[0], list) else spec[0]
    found: dict[str, Any] = {"type": kind}
    if (kind in _WIDGETS and not details.get("forceInput")) or kind == _DYNAMIC:
        found["widget"] = True
        if "default" in details:
            found["default"] = details["default"]
    flags = {
        "seed": details.get("control_after_generate"),
        "upload": details.get("image_upload"),
        "multiline": details.get("multiline"),
    }
    found |= {name: True for name, on in flags.items() if on}
    if kind == _DYNAMIC:
        found["options"] = {o["key"]: list(_inputs(o["inputs"])) for o in details["options"]}
        found.setdefault("default", details["options"][0]["key"])
    return found


def _input(entry: Mapping[str, Any]) -> Input:
    options = entry.get("options")
    nested = options and {k: tuple(_input(e) for e in v) for k, v in options.items()}
    return Input(**{**entry, "options": nested})


def snapshot_text(kinds: Mapping[str, Any]) -> str:
    """Return the text of ``kinds.json``: an input or output per line."""
    lines = []
    for name, kind in kinds.items():
        rows = [
            f"  {json.dumps(key)}: [\n"
            + ",\n".join(f"   {json.dumps(entry, ensure_ascii=False)}" for entry in kind[key])
            + "\n  ]"
            for key in ("inputs", "outputs")
        ]
        lines.append(f" {json.dumps(name)}: {{\n" + ",\n".join(rows) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"
