"""Write one checkpoint from several ranks, each its own tensors to their final place.

The first rank begins and publishes the file. The others open it under its temporary name, so all
must see the same folder.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from ..errors import CheckpointError, RankError
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
            CheckpointError: the disk failed.
            RankError: another rank failed.
        """
        if self._ranks.size == 1:
            return
        self._sync()
        if not self._ranks.is_first:
            self._close()  # a file that is open elsewhere cannot be renamed on Windows
        written = sorted(set(self._specs) - self._pending)
        for names in self._ranks.gather("tensors", written):
            self._pending.difference_update(names)

    def commit(self, metadata: Mapping[str, str] | None = None) -> None:
        """Publish the file on the first rank; the others wait for that."""
        if self._ranks.is_first:
            super().commit(metadata)
        self._ranks.gather("publishing", None)

    def _make_room(self) -> None:
        if self._ranks.is_first:
            super()._make_room()

    def _open(self) -> BinaryIO:
        """Begin the file, or open the one that the first rank began.

        Raises:
            RankError: it is not visible here, or this rank would write something else.
        """
        file = super()._open() if self._ranks.is_first else None
        layout = self._layout()
        name, begun = self._ranks.by_first("file", lambda: [self._partial.name, layout])
        if begun != layout:
            raise RankError(
                f"{self.target} would have other tensors here than on rank 0; give all ranks the "
                "same model, recipe and calibration"
            )
        if file is not None:
            return file
        self._partial = self.target.with_name(name)
        return self._open_begun()

    def _open_begun(self) -> BinaryIO:
        until = time.monotonic() + _VISIBLE_SECONDS
        while True:
            try:
                if self._partial.stat().st_size == self._size:
                    return self._partial.open("r+b", buffering=0)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise CheckpointError(f"cannot write to {self._partial}: {error}") from error
            if time.monotonic() > until:
                raise RankError(
                    f"this rank does not see {self._partial}, which rank 0 has begun. All machines "
                    "must share the folder of the target, under the same path"
                )
            time.sleep(0.1)

    def _layout(self) -> str:
        """Return a digest of every tensor's place, dtype and shape."""
        text = f"{self._header_bytes} {self._header({}).decode()}"
        return hashlib.sha256(text.encode()).hexdigest()
