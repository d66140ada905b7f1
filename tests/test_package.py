"""The pack installs, imports and loads under any name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nvfp4_foundry.quant import VERSION

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
