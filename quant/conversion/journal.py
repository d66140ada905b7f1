"""The journal of a conversion: finished layers, so that a stopped run need not encode them again.

It is one file for each rank beside the target, to which each layer is appended: a line with its
report and the digests of its tensors, then their bytes. Nothing depends on the order in which the
disk writes, because what is incomplete or damaged does not match its digests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import torch

from .. import VERSION
from ..calibration.contents import digest_of_statistics
from ..errors import FileError
from ..files.digest import LENGTH, digest_of, digest_of_tensor
from ..files.json_file import parse_json
from ..files.resumable import (
    KEY_LENGTH,
    lock,
    rank_of,
    remove_resumable,
    resumable_files,
    resumable_path,
)
from ..ranks.alone import ALONE, Ranks
from ..sources.safetensors_file import DTYPE_NAMES, DTYPES
from .job import ConversionJob
from .report import LayerReport

# Finished layers are not taken over from a version that computes others. Raise it with them.
_NUMBERS = 2
_LENGTH_DIGITS = 12
_HEAD = _LENGTH_DIGITS + LENGTH + 1
Restored = tuple[LayerReport, dict[str, torch.Tensor]]


def journal_key(job: ConversionJob, *, measure_outputs: bool) -> str:
    """Return a digest of all that decides the bytes of a layer: source, plan, calibration, code."""
    states = [(str(path.resolve()), path.stat()) for path in job.source.paths]
    text = json.dumps(
        {
            "version": [VERSION, _NUMBERS, torch.__version__],
            "files": [[name, found.st_size, found.st_mtime_ns] for name, found in states],
            "fingerprint": job.source.fingerprint().to_json(),
            "loras": [str(lora) for lora in job.source.loras],
            "layers": [repr(planned) for _, planned in job.layers],
            "recipe": job.plan.recipe.model_dump(mode="json"),
            "scales": {name: repr(decision) for name, decision in job.decisions.items()},
            "calibration": digest_of_statistics(job.statistics) if job.statistics else "",
            "device": job.device.type,
            "options": [measure_outputs, job.whole_file],
        },
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:KEY_LENGTH]


class Journal:
    """The layers that a rank has finished in a conversion to this target.

    An earlier run may have had more ranks. The journals of those that are missing now are inherited
    by the others.

    Attributes:
        path: the file.
        reused: the bytes that an earlier run left, those that were inherited too.
    """

    def __init__(self, target: Path, key: str, ranks: Ranks = ALONE):
        """Open the journal of a rank, or begin one, and open what it inherits.

        Raises:
            FileError: another run writes it, or the folder is not writable.
        """
        self._target, self._key = target, key
        self.path = resumable_path(target, key, ranks.rank)
        self._inherited: list[BinaryIO] = []
        self._file: BinaryIO | None = None
        try:
            self._file = self.path.open("r+b" if self.path.exists() else "x+b")
            lock(self._file)
            for path in _inherited(target, key, ranks):
                self._inherited.append(path.open("r+b"))
                lock(self._inherited[-1])
            files = (self._file, *self._inherited)
            self.reused = sum(os.fstat(file.fileno()).st_size for file in files)
        except OSError as error:
            self._close_all()
            raise FileError(
                f"{self.path} cannot be opened, perhaps because another run writes {target} now "
                f"({error.strerror or error}); wait for it, or convert without resuming"
            ) from error

    def read(self) -> Iterator[Restored]:
        """Yield the finished layers that are intact, and cut off what is not complete."""
        assert self._file is not None
        seen: set[str] = set()
        for file in (self._file, *self._inherited):
            file.seek(0)
            end = 0
            while (entry := _read_entry(file)) is not None:
                report, tensors = entry
                end = file.tell()
                if tensors is not None and report.name not in seen:
                    seen.add(report.name)
                    yield report, tensors
            file.seek(end)
            file.truncate()

    def remove_other_settings(self) -> int:
        """Delete what runs with other settings or another source left; return its bytes."""
        return remove_resumable(self._target, keep=self._key)

    def append(self, report: LayerReport, tensors: Mapping[str, torch.Tensor]) -> None:
        """Add a finished layer and bring it to the disk. If that fails, no more are added."""
        if self._file is None:
            return
        flat = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        listed = {
            name: [DTYPE_NAMES[t.dtype], list(t.shape), digest_of_tensor(t)]
            for name, t in flat.items()
        }
        line = json.dumps({"report": asdict(report), "tensors": listed}).encode()
        try:
            self._file.write(f"{len(line):0{_LENGTH_DIGITS}}{digest_of(line)}\n".encode() + line)
            for tensor in flat.values():
                if tensor.numel():
                    self._file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:  # such as a full disk, which the checkpoint itself may still fit on
            _remove(self._file, self.path)
            self._file = None

    def close(self) -> None:
        """Keep the file for a later run, unless no layer is in it."""
        empty = self._file is not None and self._file.seek(0, os.SEEK_END) == 0
        self._close_all()
        if empty:
            self.path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the file, and those that were inherited: the checkpoint is finished."""
        for file in self._inherited:
            _remove(file, Path(file.name))
        if self._file is not None:
            _remove(self._file, self.path)
        self._inherited, self._file = [], None

    def _close_all(self) -> None:
        for file in (*self._inherited, *([self._file] if self._file is not None else [])):
            file.close()
        self._inherited, self._file = [], None


def _inherited(target: Path, key: str, ranks: Ranks) -> list[Path]:
    """Return the journals of ranks that this run does not have, which this rank takes care of."""
    known = {path: rank_of(path) for path in resumable_files(target)}
    return [
        path
        for path, rank in known.items()
        if path == resumable_path(target, key, rank)
        and rank >= ranks.size
        and rank % ranks.size == ranks.rank
    ]


def _remove(file: BinaryIO, path: Path) -> None:
    with contextlib.suppress(OSError):
        file.close()
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _read_entry(file: BinaryIO) -> tuple[LayerReport, dict[str, torch.Tensor] | None] | None:
    """Read one layer; its tensors are None if one is damaged. None at the end of what is whole."""
    head = file.read(_HEAD)
    if len(head) < _HEAD or not head[:_LENGTH_DIGITS].isdigit():
        return None
    line = file.read(int(head[:_LENGTH_DIGITS]))
    if digest_of(line).encode() != head[_LENGTH_DIGITS:-1]:
        return None
    found = parse_json(line, endless=True)
    report = LayerReport(**{**found["report"], "shape": tuple(found["report"]["shape"])})
    tensors: dict[str, torch.Tensor] = {}
    intact = True
    for name, (dtype, shape, digest) in found["tensors"].items():
        tensor = torch.empty(shape, dtype=DTYPES[dtype])
        if tensor.numel():
            view = tensor.view(-1).view(torch.uint8).numpy().data
            if file.readinto(view) < len(view):  # type: ignore[attr-defined]
                return None
        intact = intact and digest_of_tensor(tensor) == digest
        tensors[name] = tensor
    return report, tensors if intact else None
