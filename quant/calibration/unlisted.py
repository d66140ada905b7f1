"""Second moments that no calibration lists yet: a killed run leaves them, and nobody needs them.

A run writes its second moments as soon as it ends, hours before the calibration that lists them
may be saved. Until then, an empty file beside each says which process wrote it. A file without such
a mark was listed once, and is never deleted here, even if its calibration is elsewhere now.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

from ..files.running import Writer, this_process
from ..files.write import make_folder

_MARK = re.compile(r"\.(?P<id>[^.]+)\.(?P<writer>[0-9a-f]+-[0-9a-f]+-[0-9a-f]+)\.unlisted")


def mark(folder: Path, part: str) -> None:
    """Say that this process writes a part, and that no calibration lists it.

    Raises:
        FileError: the folder cannot be made.
        OSError: the disk is full, or the folder cannot be written.
    """
    make_folder(folder)
    (folder / f".{part}.{this_process()}.unlisted").touch()


def unmark(folder: Path, parts: Collection[str]) -> None:
    """Say that a calibration lists these parts now."""
    for path, part, _ in _marks(folder):
        if part in parts:
            with contextlib.suppress(OSError):
                path.unlink()


def remove_unlisted(folder: Path, listed: Callable[[], Collection[str]]) -> None:
    """Delete the parts of dead processes of this machine that no calibration lists.

    Args:
        folder: where the parts are.
        listed: tells which parts are listed; called only if there is something to delete.
    """
    dead = [(path, part) for path, part, writer in _marks(folder) if _is_dead(path, writer)]
    kept = listed() if dead else ()
    for path, part in dead:
        with contextlib.suppress(OSError):
            if part not in kept:
                (folder / f"{part}.safetensors").unlink(missing_ok=True)
            path.unlink()


def _marks(folder: Path) -> list[tuple[Path, str, str]]:
    """Return each mark with its part and its writer."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = (_MARK.fullmatch(name) for name in names if name.endswith(".unlisted"))
    return [(folder / f[0], f["id"], f["writer"]) for f in found if f is not None]


def _is_dead(path: Path, text: str) -> bool:
    writer = Writer.parse(text)
    try:
        written = path.stat().st_mtime
    except OSError:
        return False
    return writer is not None and writer.is_dead(last_write=written, locked=None)
