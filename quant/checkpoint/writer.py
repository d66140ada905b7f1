"""Write safetensors files as a stream, atomically.

Shapes and dtypes are known before the data, so the writer lays out the header first and writes
tensors in any order to their final place. It writes to a temporary file beside the target and
renames it once it is complete and on disk, so the target name never holds a partial file.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import torch
from typing_extensions import Self

from ..errors import CheckpointError
from ..files.digest import digest_of_tensor
from ..files.partial import Partial
from ..files.write import check_target, failures_named
from ..formats.base import TensorSpec
from ..sources.safetensors_file import DTYPE_NAMES
from .digests import no_digests, sealed, with_digests

# Smaller parts are left to the sync at the end.
_LARGE_PART = 1 << 20


class CheckpointWriter:
    """Context manager that writes one safetensors file completely or not at all.

    Args:
        target: the final path. Its folder must exist.
        specs: every tensor that will be written.
        metadata: the header's string map. Digests of the tensors and of the header are added.
        header_slack: bytes kept free for longer metadata passed to `commit`.
        overwrite: replace an existing target. Otherwise an existing target is an error, before
            any work and again at the rename.

    Raises:
        FileError: as `check_target`.
    """

    def __init__(
        self,
        target: Path,
        specs: Mapping[str, TensorSpec],
        metadata: Mapping[str, str],
        *,
        header_slack: int = 0,
        overwrite: bool = False,
    ):
        self._offsets, data_bytes = _lay_out(specs)
        self._partial = self._choose_file(target, data_bytes, overwrite=overwrite)
        self.target = target
        self._specs = dict(specs)
        self._metadata = dict(metadata)
        self._overwrite = overwrite
        self._pending = set(specs)
        self._digests = no_digests(specs)
        self._header_bytes = 0
        self._header_bytes = len(self._header(self._metadata)) + header_slack
        self._header_bytes += -self._header_bytes % 8  # readers expect aligned data
        self._size = 8 + self._header_bytes + data_bytes
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        try:
            with failures_named(self.target):
                self._file = self._open()
        except BaseException:
            self._abandon()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._abandon()

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write one tensor to its place.

        Raises:
            CheckpointError: the tensor was not announced, was written before, or has another
                shape or dtype.
            FileError: the disk failed.
        """
        spec = self._specs.get(name)
        if spec is None or name not in self._pending:
            raise CheckpointError(f"{name} was not announced or is written twice")
        if tuple(tensor.shape) != spec.shape or tensor.dtype != spec.dtype:
            raise CheckpointError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"announced as {spec.dtype} {spec.shape}"
            )
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            self._write_at(8 + self._header_bytes + self._offsets[name], flat.view(torch.uint8))
        self._digests[name] = digest_of_tensor(flat.view(tensor.shape))
        self._pending.discard(name)

    def commit(self, metadata: Mapping[str, str] | None = None) -> None:
        """Finish the file: write the header, sync to disk, and rename.

        Args:
            metadata: replaces the earlier metadata; must fit into ``header_slack``.

        Raises:
            CheckpointError: tensors are missing, or the metadata does not fit.
            FileError: another program created the target meanwhile, or the disk failed.
        """
        if self._pending:
            raise CheckpointError(
                f"{len(self._pending)} announced tensors were not written, "
                f"e.g. {min(self._pending)}"
            )
        header = self._header(self._metadata if metadata is None else metadata)
        if len(header) > self._header_bytes:
            raise CheckpointError("the metadata is longer than the space reserved for it")
        head = struct.pack("<Q", self._header_bytes) + header.ljust(self._header_bytes)
        self._write_at(0, torch.frombuffer(bytearray(sealed(head)), dtype=torch.uint8))
        with failures_named(self.target):
            self._partial.publish(overwrite=self._overwrite)
        self._file = None

    def _choose_file(self, target: Path, data_bytes: int, *, overwrite: bool) -> Partial:
        return Partial(check_target(target, data_bytes, overwrite=overwrite))

    def _open(self) -> BinaryIO:
        file = self._partial.open(buffering=0)
        file.truncate(self._size)
        return file

    def _header(self, metadata: Mapping[str, str]) -> bytes:
        complete = with_digests(metadata, self._digests, self._header_bytes)
        entries: dict[str, object] = {"__metadata__": complete}
        for name, offset in self._offsets.items():
            spec = self._specs[name]
            entries[name] = {
                "dtype": DTYPE_NAMES[spec.dtype],
                "shape": list(spec.shape),
                "data_offsets": [offset, offset + spec.nbytes],
            }
        return json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()

    def _write_at(self, offset: int, data: torch.Tensor) -> None:
        if self._file is None:
            raise CheckpointError("the writer is not open")
        view = data.numpy().data
        with failures_named(self.target):
            self._file.seek(offset)
            while view:
                view = view[self._file.write(view) :]
            _start_writing_back(self._file, offset, data.nbytes)

    def _abandon(self) -> None:
        self._file = None
        self._partial.remove()


def _start_writing_back(file: BinaryIO, offset: int, size: int) -> None:
    """Have the system write a part of the file to the disk now, without waiting for it.

    Otherwise most of a checkpoint would be written by the sync at the end, with all cores idle.
    Linux starts to write pages that are not needed any more.
    """
    if sys.platform == "linux" and size >= _LARGE_PART:
        os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_DONTNEED)


def _lay_out(specs: Mapping[str, TensorSpec]) -> tuple[dict[str, int], int]:
    """Return each tensor's offset in the data, and the size of the data.

    The widest dtypes come first, as in the reference serializer, so that every tensor is aligned
    for readers that map the file.
    """
    ordered = sorted(specs, key=lambda name: -specs[name].dtype.itemsize)
    offsets: dict[str, int] = {}
    position = 0
    for name in ordered:
        offsets[name] = position
        position += specs[name].nbytes
    return offsets, position
