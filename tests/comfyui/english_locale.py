"""The English locale, made from the nodes as ComfyUI lists them.

Run ``python -m tests.comfyui.english_locale`` after the texts of a node have changed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.comfyui.comfy_python import comfyui_path, comfyui_python
from tests.comfyui.comfy_server import ROOT, ComfyServer, make_base

FOLDER = ROOT / "locales" / "en"
_PACK = "NVFP4 Foundry"
_DYNAMIC, _AUTOGROW = "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3"


def english_locale(listed: Mapping[str, Any]) -> dict[str, Any]:
    """Return file name -> content of the English locale for the answer of ``/object_info``."""
    nodes = {name: node for name, node in sorted(listed.items()) if name.startswith("NVFP4Foundry")}
    menus = sorted({part for node in nodes.values() for part in node["category"].split("/")})
    categories = {_PACK: _PACK, **{menu: menu for menu in menus if menu != _PACK}}
    return {
        "main.json": {"nodeCategories": categories},
        "nodeDefs.json": {name: _node(node) for name, node in nodes.items()},
    }


def write(locale: Mapping[str, Any], folder: Path = FOLDER) -> None:
    """Write the files of a locale."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in locale.items():
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / name).write_text(f"{text}\n", encoding="utf-8")


def inputs_of(node: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the inputs of a node that the page shows: name, and options of the schema.

    The inputs of a dynamic choice are named ``choice.input``, and come once for each choice.
    """
    for group in ("required", "optional"):
        for name, spec in node["input"].get(group, {}).items():
            yield from _visible(name, spec)


def _visible(name: str, spec: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if kind == _AUTOGROW:
        yield from _grown(name, options["template"])
        return
    yield name, options
    if kind == _DYNAMIC:
        for choice in options["options"]:
            for inner, own in inputs_of({"input": choice["inputs"]}):
                # the page shows these under their own names, whatever their display_name
                yield f"{name}.{inner}", {**own, "display_name": None}


def _grown(name: str, template: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    inner = {**template["input"].get("required", {}), **template["input"].get("optional", {})}
    (spec,) = inner.values()
    for index in range(template["max"]):
        yield f"{name}.{template['prefix']}{index}", {**spec[1], "display_name": None}


def _node(node: Mapping[str, Any]) -> dict[str, Any]:
    inputs: dict[str, dict[str, str]] = {}
    tooltips: dict[str, set[str]] = {}
    for name, options in inputs_of(node):
        key = name.replace(".", "_")  # as the page writes the names in its keys
        own = name.rpartition(".")[2]
        inputs[key] = {"name": options.get("display_name") or own}
        tooltips.setdefault(key, set()).add(options.get("tooltip") or "")
    for key, texts in tooltips.items():
        # an input that means something else in each choice has its tooltip from the schema
        if len(texts) == 1 and texts != {""}:
            inputs[key]["tooltip"] = texts.pop()
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": inputs,
        "outputs": {str(i): {"name": name} for i, name in enumerate(node["output_name"])},
    }


def main() -> None:
    """Write the English locale with a ComfyUI of its own."""
    comfyui = comfyui_path()
    if comfyui is None:
        raise SystemExit("no ComfyUI found: set COMFYUI_PATH to its folder")
    with tempfile.TemporaryDirectory() as folder:
        server = ComfyServer(comfyui_python(comfyui), comfyui, make_base(Path(folder) / "base"))
        server.start()
        try:
            write(english_locale(server.get("/object_info")))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
