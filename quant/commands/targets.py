"""Whether a file may be written: asked before the work, not after it."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError, UsageError


def is_one_of(path: Path, files: tuple[Path, ...]) -> bool:
    """Tell whether a path, under whatever name, is one of some files."""
    return path.exists() and any(file.exists() and path.samefile(file) for file in files)


def require_free(path: Path, inputs: tuple[Path, ...], overwrite: bool) -> None:
    """Refuse, before the work, to write where something is, or where nothing can be."""
    if is_one_of(path, inputs):
        raise UsageError(f"{path} is what is read here; choose another name")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir() or (path.exists() and not overwrite):
        raise CheckpointError(f"{path} exists; use --overwrite to replace it")
