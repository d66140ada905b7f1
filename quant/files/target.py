"""Where a file may be written: its name, its folder, links, and what is there already."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..errors import FileError

#: Links that are followed before it counts as a circle, as on Linux.
_MOST_LINKS = 40
# Not folders of files, except the one that is kept in memory.
_SYSTEM_FOLDERS = ("/dev", "/proc", "/sys")
_FOLDERS_OF_FILES = ("/dev/shm",)
_DEVICES = re.compile(
    r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³])\s*(\..*)?", re.I | re.S
)
_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*\x00-\x1f]')
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def why_not_a_name(name: str, system: str = os.name) -> str:
    """Return why no file can have this name, without folders; empty if one can.

    Args:
        name: the name.
        system: ``nt`` for the rules of Windows, which names that work everywhere follow too.
    """
    if not name:
        return "it is empty"
    if "\0" in name:
        return "it holds a NUL character"
    try:
        name.encode("utf-8", "surrogateescape")  # as the names of files that are not UTF-8 are read
    except UnicodeEncodeError:
        return "it holds half a character, which no file system can store"
    if system != "nt":
        return ""
    if found := _NOT_ON_WINDOWS.search(name):
        return f"Windows allows no {found.group()!r} in names"
    if is_device_name(name):
        return "Windows keeps it for a device"
    return "Windows drops dots and spaces at the end" if name[-1] in ". " else ""


def is_device_name(name: str) -> bool:
    """Tell whether Windows has a device of this name, with any suffix and in every folder."""
    return _DEVICES.fullmatch(name) is not None


def require_ordinary(path: str | os.PathLike[str], *, system: str = os.name) -> None:
    """Refuse to read what is neither a file nor a folder, which might never end or never begin.

    What does not exist passes; whoever opens it says so.

    Raises:
        FileError: it is a device, a named pipe or a socket, or no file can have this name.
    """
    pure = (PureWindowsPath if system == "nt" else PurePosixPath)(path)
    if reason := _why_not_in_a_path(pure, system):
        raise FileError(f"{os.fspath(path)!r} cannot be read: {reason}")
    with contextlib.suppress(OSError):
        if (kind := _kind(os.stat(path).st_mode)) not in ("", "a folder"):
            raise FileError(f"{path} is {kind}, not a file; give a file")


def final_path(target: Path) -> Path:
    """Return the file that a target names once all links are followed; it need not exist.

    A link stays a link: the file that it points to is what is written.

    Raises:
        FileError: it is a folder, a device, a named pipe or a socket, is among the system's own
            files, or its links form a circle; or no file can have its name.
    """
    reason = "it holds a NUL character" if "\0" in str(target) else ""
    if target.name and (reason := reason or why_not_a_name(target.name)):
        raise FileError(f"{str(target)!r} cannot be written: {reason}; choose another name")
    path = target
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(path.parent)
        if _is_in(folder, _SYSTEM_FOLDERS) and not _is_in(folder, _FOLDERS_OF_FILES):
            raise FileError(f"{target} is a file of the system; choose a name in another folder")
        if not path.is_symlink():
            break
        path = path.parent / os.readlink(path)
    else:
        raise FileError(f"{target} is a link that leads in a circle; choose another name")
    with contextlib.suppress(OSError):
        if kind := _kind(path.stat().st_mode):
            way_out = "give a file name" if kind == "a folder" else "choose another name"
            raise FileError(f"{target} is {kind}; {way_out}")
    return path


def names_one_file(a: Path, b: Path) -> bool:
    """Tell whether two paths name the same file, which need not exist yet.

    Where the file system takes upper and lower case for the same, so does this.
    """
    with contextlib.suppress(OSError):
        return a.samefile(b)
    first, second = os.path.realpath(a), os.path.realpath(b)
    if ignores_case(Path(first).parent):
        return _folded(first) == _folded(second)
    return first == second


def ignores_case(folder: Path) -> bool:
    """Tell whether a folder is on a file system where names differ in more than their case."""
    for place in (folder, *folder.parents):
        other = place.with_name(place.name.swapcase()) if place.name else place
        if other.name != place.name:
            try:
                return other.samefile(place)
            except OSError:
                return False
    return os.name == "nt"


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _why_not_in_a_path(path: PurePosixPath | PureWindowsPath, system: str) -> str:
    parts = path.parts[1:] if path.anchor else path.parts
    if system != "nt":
        return "it holds a NUL character" if "\0" in str(path) else ""
    names = (part for part in parts if part not in (".", ".."))
    return next((reason for name in names if (reason := why_not_a_name(name, system))), "")


def _kind(mode: int) -> str:
    """Return what is not an ordinary file by its mode; empty for a file."""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "")


def _is_in(folder: str, folders: tuple[str, ...]) -> bool:
    return any(folder == each or folder.startswith(f"{each}/") for each in folders)
