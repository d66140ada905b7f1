"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ..errors import SourceError

Kind = Literal["safetensors", "gguf", "torch"]

_HEAD = 512
_POINTER = b"version https://git-lfs"
# A pickle of protocol 2 or later, and the tar file of the first versions of torch.
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_TAR_AT, _TAR = 257, b"ustar"
_COMPRESSED = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"(\xb5/\xfd": "a zstd archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
}
_FETCH = "fetch the model itself"
# Torch's archives hold this file beside the data of the tensors.
_ZIP, _IN_TORCH_ZIP = b"PK\x03\x04", "data.pkl"


def kind_of_file(path: Path) -> Kind:
    """Return how to read a file: by its first bytes, because names may be wrong.

    Raises:
        SourceError: it cannot be opened, or it is something else that was saved under the name of
            a model: a web page, a pointer of Git LFS, an archive.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise SourceError(f"cannot open {path}: {error.strerror or error}") from error
    if head[:4] == b"GGUF":
        return "gguf"
    if _is_header(head):
        return "safetensors"
    if head[:4] == _ZIP and _is_torch_zip(path):
        return "torch"
    if _PICKLE.match(head) or head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        return "torch"
    what = _impostor(head)
    if what:
        raise SourceError(f"{path} is {what}")
    return "gguf" if path.suffix.lower() == ".gguf" else "safetensors"


def _is_header(head: bytes) -> bool:
    """Whether this is the length of a header and its opening brace."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def _impostor(head: bytes) -> str | None:
    """Return what a file is that holds no tensors, and what to do; None if it is not known."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_POINTER):
        return (
            "a pointer of Git LFS, not the model: it only names the file that the server keeps; "
            "run 'git lfs pull' in its folder, or fetch the file from the model's page"
        )
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return (
            "a web page that was saved under the name of a model (an error page, or one that asks "
            f"to log in or to accept a licence); {_FETCH}"
        )
    if text.startswith((b"<?xml", b"<error")):
        return f"an XML document, such as the error of a server, not a model; {_FETCH}"
    if text[:1] in (b"{", b"["):
        return (
            "a JSON document, not a model (a config, an index, or the error of a server); give the "
            "file with the weights, or an index named *.safetensors.index.json"
        )
    if head[:4] == _ZIP:
        return "a zip archive; unpack it and give the model inside"
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            return f"{name}; unpack it and give the model inside"
    if head and not head.strip(b"\0"):
        return "filled with zeros, so its download did not finish; fetch it again"
    return None


def _is_torch_zip(path: Path) -> bool:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(_IN_TORCH_ZIP) for name in archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        # the list of files is at the end of an archive; damaged names or versions are no list
        raise SourceError(
            f"{path} is a truncated archive of torch or zip: its end is missing; fetch it again"
        ) from None
