"""The ComfyUI to test against, and its Python."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).with_name("scripts")
#: Threads that wait for each other on a busy machine cost more than small tensors gain.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class ComfyUI:
    """A ComfyUI checkout and the Python that runs it."""

    path: Path
    python: Path

    def run(self, script: str | Path, *arguments: object, timeout: int = 300) -> None:
        """Run a script, by its name in ``scripts`` or by its path, and require that it succeeds."""
        done = subprocess.run(
            [self.python, SCRIPTS / script, *map(str, arguments)],
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(self.path)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def comfyui_path() -> Path | None:
    """Folder of ComfyUI: ``COMFYUI_PATH``, else ``~/comfy/ComfyUI``; None if neither has one."""
    path = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    return path if (path / "comfy" / "sd.py").is_file() else None


def comfyui_python(path: Path) -> Path:
    """Python of the ComfyUI in ``path``: ``COMFYUI_PYTHON``, else that of its ``.venv``."""
    named = os.environ.get("COMFYUI_PYTHON")
    inside = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    return Path(named) if named else path / ".venv" / inside


def why_not() -> str | None:
    """Why there is no ComfyUI to test against, or None if there is."""
    path = comfyui_path()
    if path is None:
        return "none found, set COMFYUI_PATH to its folder"
    python = comfyui_python(path)
    return None if python.is_file() else f"no {python}, set COMFYUI_PYTHON to its Python"
