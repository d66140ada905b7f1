"""The house: rooms in one direction, no circles, short functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
QUANT = ROOT / "quant"

#: The rooms from top to bottom, as docs/architecture.md lists them.
ROOMS = (
    "cli",
    "reports",
    "derive",
    "sensitivity",
    "conversion",
    "checkpoint",
    "planning",
    "calibration",
    "hardware",
    "rounding",
    "sources",
    "formats",
    "files",
    "ranks",
)
#: What every room uses. These modules import from each other only.
LOOSE = ("difference", "errors", "fingerprint", "layer_names", "progress", "text")


def module_of(path: Path) -> str:
    """Return the dotted name of a file below the root: ``quant.formats.nvfp4``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, modules: set[str] = frozenset()) -> Iterator[str]:
    """Yield the modules a file imports, relative imports resolved.

    ``from .a import b`` is ``a.b`` where that is one of ``modules``, else ``a``.
    """
    package = module_of(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield full if full in modules else module


def rooms_of(path: Path) -> set[str]:
    """Return the rooms and loose modules of ``quant`` that a file imports from."""
    files = {module_of(file) for file in QUANT.rglob("*.py")}
    names = [name.split(".") for name in imports_of(path, files)]
    return {name[1] for name in names if name[0] == "quant" and len(name) > 1}


def files_of(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_folder_is_a_room_and_few_modules_are_loose() -> None:
    folders = {path.parent.name for path in QUANT.glob("*/__init__.py")}
    loose = {path.stem for path in QUANT.glob("*.py")} - {"__init__"}
    assert folders == set(ROOMS)
    assert loose == set(LOOSE) and len(loose) <= 6


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_from_one_above_it(room: str) -> None:
    allowed = {*ROOMS[ROOMS.index(room) :], *LOOSE}
    for path in (QUANT / room).rglob("*.py"):
        assert rooms_of(path) <= allowed, path


@pytest.mark.parametrize("module", LOOSE)
def test_loose_modules_import_no_room(module: str) -> None:
    assert rooms_of(QUANT / f"{module}.py") <= set(LOOSE)


def test_imports_of_deep_files_are_seen() -> None:
    found = rooms_of(QUANT / "sources" / "quantized" / "comfyui.py")
    assert {"errors", "formats", "sources"} <= found and "quantized" not in found


def test_modules_import_each_other_in_no_circle() -> None:
    files = files_of("quant", "nodes", "demo", "bench")
    modules = {module_of(path) for path in files}
    graph = {
        module_of(path): {name for name in imports_of(path, modules) if name in modules}
        - {module_of(path)}
        for path in files
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, naming the circle


def test_the_backend_knows_no_node() -> None:
    for path in files_of("quant"):
        assert not any(name.split(".")[0] == "nodes" for name in imports_of(path)), path


def test_only_nodes_import_comfyui() -> None:
    for path in files_of("quant", "demo", "presets"):
        for name in imports_of(path):
            assert name.split(".")[0] not in ("comfy", "comfy_api", "folder_paths"), path


def functions_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the length of each function in lines, docstring included, and where it is."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            yield length, f"{path}:{node.lineno} {node.name}"


def test_functions_are_short() -> None:
    lengths = [
        found
        for path in files_of("quant", "nodes", "demo", "bench")
        for found in functions_of(path)
    ]
    assert median(length for length, _ in lengths) <= 10
    assert [place for length, place in lengths if length > 60] == []
