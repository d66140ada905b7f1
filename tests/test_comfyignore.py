"""The package that ComfyUI-Manager downloads has everything that runs, and little else."""

from __future__ import annotations

import ast
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGEST = 4_500_000  # a picture for each help page and template

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def patterns() -> list[str]:
    """Return the patterns of ``.comfyignore``."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def is_left_out(path: str) -> bool:
    """Whether a pattern matches a path, as ``.gitignore`` reads patterns from the root."""
    parts = path.split("/")
    for pattern in patterns():
        wanted = pattern.strip("/").split("/")
        is_folder = pattern.endswith("/")
        compared = parts[: len(wanted)]
        long_enough = len(parts) > len(wanted) if is_folder else len(parts) >= len(wanted)
        if long_enough and all(map(fnmatchcase, compared, wanted)):
            return True
    return False


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files git knows, which are what the registry's client packs."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a git checkout: {error}")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def kept(tracked: list[str]) -> set[str]:
    """The files that users download."""
    return {name for name in tracked if not is_left_out(name)}


def imported_files(name: str) -> set[str]:
    """Return the files of the repository that a Python file imports, wherever it does so."""
    package = Path(name).parent.parts
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = Path(*package[: len(package) + 1 - node.level], *(node.module or "").split("."))
            modules = [base, *(base / alias.name for alias in node.names)]
            files = [f for m in modules for f in (m.with_suffix(".py"), m / "__init__.py")]
            found |= {file.as_posix() for file in files if (ROOT / file).is_file()}
    return found


def test_patterns_are_of_the_kind_that_is_read_here() -> None:
    for pattern in patterns():
        assert pattern.startswith("/"), "start at the root"
        assert not set("!?[\\") & set(pattern) and "**" not in pattern, pattern


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tests/test_package.py", True),
        ("docs/images/layers.webp", True),
        ("docs/images", False),  # a file of this name is not the folder
        ("docs/methods.md", False),
        ("demo/tiny_wan.safetensors", True),
        ("demo/more/tiny.safetensors", False),
        ("quant/tests/data.py", False),
    ],
)
def test_matching(path: str, expected: bool) -> None:
    assert is_left_out(path) == expected


def test_imports_are_found() -> None:
    assert {"demo/judge.py", "demo/model.py"} <= imported_files("demo/train.py")
    assert "nodes/extension.py" in imported_files("__init__.py")


def test_all_that_kept_files_import_is_kept(kept: set[str]) -> None:
    assert "__init__.py" in kept
    for name in sorted(kept):
        if name.endswith(".py"):
            assert imported_files(name) <= kept, name


def test_whole_folders_are_kept(tracked: list[str], kept: set[str]) -> None:
    """Code, and the data that is read beside it."""
    tops = ("quant/", "nodes/", "presets/", "web/", "locales/", "subgraphs/", "example_workflows/")
    assert {name for name in tracked if name.startswith(tops)} <= kept
    files = ("pyproject.toml", "requirements.txt", "README.md", "CHANGELOG.md", "LICENSE")
    assert set(files) <= kept


def test_the_download_can_be_installed_for_the_command(kept: set[str]) -> None:
    """setuptools refuses a listed package without its folder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for package in project["tool"]["setuptools"]["packages"]:
        assert "/".join((*package.split(".")[1:], "__init__.py")) in kept


def test_development_files_and_pictures_are_left_out(kept: set[str]) -> None:
    tops = ("tests/", "bench/", "docs/images/", ".github/", ".ci/")
    assert not [name for name in kept if name.startswith(tops)]


def test_the_download_is_small(kept: set[str]) -> None:
    assert sum((ROOT / name).stat().st_size for name in kept) < LARGEST
