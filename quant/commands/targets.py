"""Whether a file may be written: asked before the work, not after it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from ..calibration import parse_policy
from ..errors import CalibrationError, CheckpointError, UsageError

#: The options that name what a command reads: one path, or several.
_READ = (
    "source", "path", "paths", "complete_from", "recipe", "stats", "sensitivity", "logs", "model",
    "from_checkpoint", "from_stats", "from_sensitivity", "from_gguf", "target_model",
)  # fmt: skip


def files_read(options: argparse.Namespace) -> tuple[Path, ...]:
    """Return the files on this machine that a command's options say to read.

    What a folder or an index holds is not among them: see ``TensorSource.paths``.
    """
    named: list[object] = []
    for option in _READ:
        value = getattr(options, option, None)
        named += value if isinstance(value, list) else [value]
    named.append(_scales_file(options))
    return tuple(path for path in (Path(str(n)) for n in named if n) if path.is_file())


def _scales_file(options: argparse.Namespace) -> Path | None:
    """Return the file of ``--input-scale file=PATH``; what is wrong with others is said later."""
    text = getattr(options, "input_scale", None)
    try:
        return parse_policy(text).path if text else None
    except CalibrationError:
        return None


def is_one_of(path: Path, files: Iterable[Path]) -> bool:
    """Tell whether a path, under whatever name, is one of some files."""
    return path.exists() and any(file.exists() and path.samefile(file) for file in files)


def require_free(path: Path, inputs: Iterable[Path], overwrite: bool) -> None:
    """Refuse, before the work, to write where something is, or where nothing can be."""
    if is_one_of(path, inputs):
        raise UsageError(f"{path} is what is read here; choose another name")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give a file name")
    if not path.parent.is_dir():
        raise CheckpointError(f"{path}: the folder {path.parent} does not exist; create it")
    if path.exists() and not overwrite:
        raise CheckpointError(f"{path} exists; use --overwrite to replace it")
