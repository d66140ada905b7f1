"""The pack installs, imports and loads under any name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from nvfp4_foundry.quant.version import VERSION

ROOT = Path(__file__).parents[1]

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_versions_agree() -> None:
    assert project()["project"]["version"] == VERSION


def test_every_package_folder_is_listed() -> None:
    listed = set(project()["tool"]["setuptools"]["packages"])
    found = {"nvfp4_foundry"} | {
        "nvfp4_foundry." + ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("demo", "nodes", "presets", "quant")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == found


def test_requirements_file_asks_for_what_the_package_needs_but_torch() -> None:
    def names(lines: list[str]) -> set[str]:
        return {line.split(">")[0].strip() for line in lines if line and line[0] != "#"}

    required = names((ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines())
    assert required == names(project()["project"]["dependencies"]) - {"torch"}


def test_imports_under_any_name_without_comfyui() -> None:
    """As ComfyUI does it: from the folder, under a name with spaces and slashes."""
    script = f"""
import asyncio, importlib, importlib.util, sys
name = "/some where/custom_nodes/nvfp4 foundry-main_x_v1"
spec = importlib.util.spec_from_file_location(
    name, {str(ROOT / "__init__.py")!r}, submodule_search_locations=[{str(ROOT)!r}])
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
assert "torch" not in sys.modules and "comfy_api" not in sys.modules
planning = importlib.import_module(name + ".quant.planning")
assert "smart" in planning.load_presets()
importlib.import_module(name + ".quant.conversion.convert")
assert not any(m.startswith(("comfy.", "nvfp4_foundry")) for m in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def imports_of(path: Path) -> set[str]:
    """Return absolute module names a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or "")
    return found


def stages_of(path: Path) -> set[str]:
    """Return which folders and files of ``quant`` a file in it imports, wherever it is."""
    package = path.relative_to(ROOT / "quant").parent.parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) + 1 - node.level]
            modules = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {".".join((*base, module)).split(".")[0] for module in modules}
    return found


def test_stages_of_files_in_folders_of_folders_are_found() -> None:
    found = stages_of(ROOT / "quant" / "sources" / "quantized" / "comfyui.py")
    assert {"errors", "formats", "sources"} <= found and "quantized" not in found


def test_only_nodes_import_comfyui() -> None:
    for top in ("quant", "demo", "presets"):
        for path in (ROOT / top).rglob("*.py"):
            for name in imports_of(path):
                assert name.split(".")[0] not in ("comfy", "comfy_api", "folder_paths"), path


def test_the_story_has_one_direction() -> None:
    """Formats know nothing of calibration, calibration nothing of planning, the backend no node."""
    forbidden = {
        # Hessians are of inputs as the format rounds them.
        "calibration": ("planning", "checkpoint", "sources"),
        # Sources that are quantized already are decoded by their format.
        "sources": ("planning", "checkpoint", "calibration", "rounding"),
        "rounding": ("planning", "checkpoint", "sources"),
        "planning": ("checkpoint",),
    }
    for folder, others in forbidden.items():
        for path in (ROOT / "quant" / folder).rglob("*.py"):
            assert not stages_of(path) & set(others), path
    for path in (ROOT / "quant" / "formats").rglob("*.py"):
        assert stages_of(path) <= {"formats", "errors"}, path
    for path in (ROOT / "quant").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert "nodes" not in (node.module or "").split("."), path
