"""What the Comfy Registry asks for, without its network: fields, pictures and the security check.

The rules are those of https://docs.comfy.org/registry/specifications and of ``comfy node validate``
in comfy-cli.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
LARGEST_ICON = 400
BANNER = 21 / 9
#: What comfy-cli runs ruff for: exec, eval, several statements in a line.
SECURITY = "S102,S307,E702"


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def picture(settings: dict[str, Any], field: str) -> Path:
    """Return the file of the repository that an address of the registry's fields names."""
    repository = settings["project"]["urls"]["Repository"].removeprefix("https://github.com/")
    start = f"https://raw.githubusercontent.com/{repository}/main/"
    address = settings["tool"]["comfy"][field]
    assert address.startswith(start)
    return ROOT / address.removeprefix(start)


def test_name_version_and_publisher(settings: dict[str, Any]) -> None:
    project, comfy = settings["project"], settings["tool"]["comfy"]
    assert re.fullmatch(r"[a-z]([a-z0-9]|[-_.](?=[a-z0-9]))*", project["name"])
    assert len(project["name"]) < 100 and "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["description"] and comfy["DisplayName"]
    assert re.fullmatch(r"[a-z0-9-]+", comfy["PublisherId"])


def test_the_icon_is_square_and_small_enough(settings: dict[str, Any]) -> None:
    with Image.open(picture(settings, "Icon")) as icon:
        assert icon.format == "PNG" and icon.width == icon.height <= LARGEST_ICON


def test_the_banner_is_21_to_9(settings: dict[str, Any]) -> None:
    with Image.open(picture(settings, "Banner")) as banner:
        assert banner.format == "PNG"
        assert banner.width / banner.height == pytest.approx(BANNER, rel=1e-3)


def test_the_security_check_of_the_registry_finds_nothing() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "-q", "--select", SECURITY, "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
