"""Write one checkpoint from several ranks, each its own tensors to their final place.

The first rank begins and publishes the file. The others open it under its temporary name, so all
must see the same folder.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from ..errors import RankError
from ..files.partial import Partial
from ..files.target import final_path
from ..files.write import failures_named
from ..formats.base import TensorSpec
from ..ranks.alone import Ranks
from .writer import CheckpointWriter

# A file server may show a new file to other machines with a delay.
_VISIBLE_SECONDS = 5.0


class SharedWriter(CheckpointWriter):
    """The `CheckpointWriter` of one rank; without other ranks, it is the same.

    All ranks announce the same tensors and write their own. Each calls `merge_parts` and `commit`.
    """

    def __init__(
        self,
        target: Path,
        specs: Mapping[str, TensorSpec],
        metadata: Mapping[str, str],
        ranks: Ranks,
        *,
        header_slack: int = 0,
        overwrite: bool = False,
    ):
        """See `CheckpointWriter`; only the first rank checks and touches the folder."""
        self._ranks = ranks
        super().__init__(target, specs, metadata, header_slack=header_slack, overwrite=overwrite)

    def merge_parts(self) -> None:
        """Bring this rank's part to the disk, and learn what the others have written.

        Raises:
            FileError: the disk failed.
            RankError: another rank failed.
        """
        if self._ranks.size == 1:
            return
        assert self._file is not None
        with failures_named(self.target):
            os.fsync(self._file.fileno())
            if not self._ranks.is_first:
                self._file.close()  # Windows renames no file that is open elsewhere
        written = sorted(set(self._specs) - self._pending)
        mine = {name: self._digests[name] for name in written}
        for digests in self._ranks.gather("tensors", mine):
            self._pending.difference_update(digests)
            self._digests.update(digests)

    def commit(self, metadata: Mapping[str, str] | None = None) -> None:
        """Publish the file on the first rank; the others wait for that."""
        if self._ranks.is_first:
            super().commit(metadata)
        self._ranks.gather("publishing", None)

    def _choose_file(self, target: Path, data_bytes: int, *, overwrite: bool) -> Partial:
        if self._ranks.is_first:
            return super()._choose_file(target, data_bytes, overwrite=overwrite)
        return _Begun(final_path(target))

    def _open(self) -> BinaryIO:
        """Begin the file, or open the one that the first rank began.

        Raises:
            RankError: it is not visible here, or this rank would write something else.
        """
        file = super()._open() if self._ranks.is_first else None
        layout = self._layout()
        name, begun = self._ranks.by_first("file", lambda: [self._partial.path.name, layout])
        if begun != layout:
            raise RankError(
                f"{self.target} would have other tensors here than on rank 0; give all ranks the "
                "same model, recipe and calibration"
            )
        if file is None:
            self._partial.path = self._partial.target.with_name(name)
            file = self._partial.open(buffering=0)
        return file

    def _layout(self) -> str:
        """Return a digest of every tensor's place, dtype and shape."""
        text = f"{self._header_bytes} {self._header({}).decode()}"
        return hashlib.sha256(text.encode()).hexdigest()


class _Begun(Partial):
    """An unfinished file that another rank began, which this one may delete too."""

    def open(self, buffering: int = -1) -> BinaryIO:
        """Open the file, once it is visible here.

        Raises:
            RankError: it does not become visible.
        """
        until = time.monotonic() + _VISIBLE_SECONDS
        while not self.path.is_file():
            if time.monotonic() > until:
                raise RankError(
                    f"this rank does not see {self.path}, which rank 0 has begun. All machines "
                    "must share the folder of the target, under the same path"
                )
            time.sleep(0.1)
        self._file = self.path.open("r+b", buffering=buffering)
        return self._file
