"""Digests in the header of a checkpoint: one per tensor, per metadata entry, and of the header.

The digest of the header is over its bytes and the eight before them, with zeros in its own place.
It finds every changed bit. The digests of the entries say what changed, and are protected by one of
their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..files.digest import ALGORITHM, LENGTH, digest_of
from ..files.json_file import parse_json
from ..text import shorten

#: The metadata entries. One changed bit can hide only one of them.
DIGESTS, HEADER_DIGEST = "nvfp4_foundry_digests", "nvfp4_foundry_header_digest"
_OWN = (DIGESTS, HEADER_DIGEST)
_NONE = "0" * LENGTH
_SIZE_DIGITS = 10
# Inside the text of another entry, the quotes would be escaped.
_SEAL = re.compile(rf'"{HEADER_DIGEST}":"([0-9a-f]{{{LENGTH}}})'.encode())


@dataclass(frozen=True)
class RecordedDigests:
    """What the header says: digests by name of tensors and metadata, and the header's length."""

    tensors: Mapping[str, str]
    metadata: Mapping[str, str]
    header_bytes: int


def with_digests(
    metadata: Mapping[str, str], tensors: Mapping[str, str], header_bytes: int = 0
) -> dict[str, str]:
    """Return metadata with the digests of its entries and of tensors; the header's is still open.

    The length does not depend on the values. Digests that came with the metadata are replaced.
    """
    kept = without_digests(metadata)
    recorded = {
        "algorithm": ALGORITHM,
        "header_bytes": f"{header_bytes:0{_SIZE_DIGITS}}",
        "metadata": {name: digest_of(text) for name, text in kept.items()},
        "tensors": dict(tensors),
    }
    text = json.dumps(recorded, separators=(",", ":"))
    return {**kept, DIGESTS: text, HEADER_DIGEST: _NONE + digest_of(text)}


def without_digests(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata without the entries of this module."""
    return {name: text for name, text in metadata.items() if name not in _OWN}


def no_digests(names: Mapping[str, object]) -> dict[str, str]:
    """Return digests of the right length for tensors that are not written yet."""
    return dict.fromkeys(names, _NONE)


def sealed(head: bytes) -> bytes:
    """Return the bytes in front of the data with the digest of the header in its place."""
    found = _SEAL.search(head)
    assert found is not None
    return head[: found.start(1)] + _seal_of(head, found).encode() + head[found.end(1) :]


def _seal_of(head: bytes, found: re.Match[bytes]) -> str:
    return digest_of(head[: found.start(1)] + _NONE.encode() + head[found.end(1) :])


def has_digests(metadata: Mapping[str, str]) -> bool:
    """Whether a file was written with digests."""
    return any(name in metadata for name in _OWN)


def read_digests(metadata: Mapping[str, str]) -> RecordedDigests | None:
    """Return the digests in a file's metadata; None if there are none that can be read."""
    try:
        found = parse_json(metadata[DIGESTS])
        return RecordedDigests(
            _texts(found["tensors"]), _texts(found["metadata"]), int(found["header_bytes"])
        )
    except (KeyError, TypeError, ValueError):
        return None


def read_head(path: Path) -> bytes:
    """Return the bytes of a safetensors file in front of its data.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.read(8)
            return size + file.read(int.from_bytes(size, "little"))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error


def header_problems(head: bytes, metadata: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Compare a header with its digest: return the problems, and the notes if there are none.

    Args:
        head: the bytes in front of the data.
        metadata: the metadata in it.
    """
    found = _SEAL.search(head)
    if found is not None and found[1].decode() == _seal_of(head, found):
        return [], []
    recorded = read_digests(metadata)
    if recorded is None or HEADER_DIGEST not in metadata:
        lost = DIGESTS if recorded is None else HEADER_DIGEST
        return [f"the header's entry {lost} is missing or damaged, so the header was changed"], []
    if metadata[HEADER_DIGEST][LENGTH:] != digest_of(metadata[DIGESTS]):
        return [f"the header's entry {DIGESTS} was changed, so the file is damaged"], []
    problems = list(_metadata_problems(metadata, recorded.metadata))
    if problems or len(head) - 8 != recorded.header_bytes:
        rewritten = (
            "another program wrote the header again; what it says is as it was, except for problems"
        )
        return problems, [rewritten]
    return ["the text of the header was changed, so the file is damaged"], []


def _metadata_problems(metadata: Mapping[str, str], recorded: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*metadata, *recorded} - set(_OWN)):
        if name not in recorded:
            change = "was added"
        elif name not in metadata:
            change = "is missing"
        elif digest_of(metadata[name]) != recorded[name]:
            change = "was changed"
        else:
            continue
        yield (
            f"the metadata entry {shorten([name])} {change} since the file was written; unless "
            "somebody edited it, the file is damaged"
        )


def _texts(data: Any) -> dict[str, str]:
    if not isinstance(data, dict):
        raise TypeError("no object")
    return {str(name): str(text) for name, text in data.items()}
