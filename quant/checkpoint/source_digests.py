"""Digests of the source's tensors, which prove that a checkpoint was made from it.

They are of the values as the source gives them: without prefix, under the model's own names, and
decoded. So the same model in shards, or under other names, counts as the same source. Of a weight
whose stored tensors are kept unchanged, these count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from ..files.digest import LENGTH, digest_of_tensor, digest_of_tensors
from ..files.json_file import parse_json
from ..formats import WeightFormat
from ..sources import TensorSource
from ..text import shorten
from .provenance import read_provenance

SOURCE_DIGESTS = "nvfp4_foundry_source_digests"
_STORED = "stored:"


def source_digest(value: torch.Tensor | Mapping[str, torch.Tensor]) -> str:
    """Return the digest of a tensor as the source gave it, or of a weight's stored tensors."""
    if isinstance(value, torch.Tensor):
        return digest_of_tensor(value)
    return _STORED + digest_of_tensors(value)


def source_digests_entry(digests: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata entry that holds digests by name of the source's tensors."""
    return {SOURCE_DIGESTS: json.dumps(dict(digests), separators=(",", ":"))}


def longest_source_digests(names: Iterable[str]) -> dict[str, str]:
    """Return digests as long as any, to reserve space for them."""
    return dict.fromkeys(names, _STORED + "0" * LENGTH)


class SourceProof:
    """Compares a source, tensor by tensor, with the one that a checkpoint was made from."""

    def __init__(self, recorded: Mapping[str, str], original: TensorSource | None, merged: bool):
        self._recorded, self._original, self._merged = recorded, original, merged
        self._other: list[str] = []
        self._same = 0

    @classmethod
    def of(cls, checkpoint: TensorSource, original: TensorSource | None) -> SourceProof:
        """Return the comparison for a checkpoint; without ``original``, there is nothing to do."""
        try:
            recorded: Any = parse_json(checkpoint.metadata.get(SOURCE_DIGESTS, "{}"))
        except ValueError:
            recorded = {}
        recorded = recorded if isinstance(recorded, dict) else {}
        merged = bool(read_provenance(checkpoint).get("loras"))
        return cls({str(k): str(v) for k, v in recorded.items()}, original, merged)

    def compare(self, source: Mapping[str, torch.Tensor], fmt: WeightFormat | None) -> None:
        """Compare tensors of the source by name; ``fmt`` is the format of the layer's weight."""
        for name, tensor in source.items():
            wanted = self._recorded.get(name)
            if wanted is None or self._original is None:
                continue
            found: str | None = None
            if not wanted.startswith(_STORED):
                found = source_digest(tensor)
            elif fmt is not None:
                stored = self._original.stored_tensors(name, fmt)
                found = None if stored is None else source_digest(stored)
            if found == wanted:
                self._same += 1
            else:
                self._other.append(name)

    def problems(self) -> Iterator[str]:
        """Yield that the checkpoint was made from another source, if so."""
        if self._other and not self._merged:
            yield (
                f"this file was not made from this source: {len(self._other)} of "
                f"{len(self._other) + self._same} tensors of the source have other values, "
                f"{shorten(self._other, 3)}"
            )

    def notes(self) -> Iterator[str]:
        """Yield what the comparison with the source could not show."""
        if self._original is None:
            return
        if self._merged and self._other:
            yield (
                "the file was made with LoRAs merged into its source, so the source alone does "
                "not prove where it comes from"
            )
        elif not self._recorded:
            yield (
                "the file has no digests of its source, so a source with nearly equal values "
                "would pass for it"
            )
