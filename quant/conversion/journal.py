"""The journal of a conversion: finished layers, so that a stopped run need not encode them again.

It is one file beside the target, to which each layer is appended: a line with its report and the
digests of its tensors, then their bytes. Nothing depends on the order in which the disk writes,
because what is incomplete or damaged does not match its digests.
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
from ..files.resumable import KEY_LENGTH, lock, remove_resumable, resumable_path
from ..sources.safetensors_file import DTYPE_NAMES, DTYPES
from .job import ConversionJob
from .report import LayerReport

_LENGTH_DIGITS = 12
_HEAD = _LENGTH_DIGITS + LENGTH + 1
Restored = tuple[LayerReport, dict[str, torch.Tensor]]


def journal_key(job: ConversionJob, *, measure_outputs: bool) -> str:
    """Return a digest of all that decides the bytes of a layer: source, plan, calibration, code."""
    states = [(str(path.resolve()), path.stat()) for path in job.source.paths]
    text = json.dumps(
        {
            "version": [VERSION, torch.__version__],
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
    """The layers that a conversion to this target has finished.

    Attributes:
        path: the file.
        other_settings: the bytes of journals of other settings or of a changed source, which were
            deleted.
        reused: the bytes that an earlier run left.
    """

    def __init__(self, target: Path, key: str):
        """Open the journal, or begin one.

        Raises:
            FileError: another run writes it, or the folder is not writable.
        """
        self.path = resumable_path(target, key)
        self.other_settings = remove_resumable(target, keep=self.path)
        try:
            self._file: BinaryIO | None = self.path.open("r+b" if self.path.exists() else "x+b")
            lock(self._file)
            self.reused = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise FileError(
                f"{self.path} cannot be opened, perhaps because another run writes {target} now "
                f"({error.strerror or error}); wait for it, or convert without resuming"
            ) from error

    def read(self) -> Iterator[Restored]:
        """Yield the finished layers that are intact, and cut off what is not complete."""
        assert self._file is not None
        seen: set[str] = set()
        self._file.seek(0)
        end = 0
        while (entry := _read_entry(self._file)) is not None:
            report, tensors = entry
            end = self._file.tell()
            if tensors is not None and report.name not in seen:
                seen.add(report.name)
                yield report, tensors
        self._file.seek(end)
        self._file.truncate()

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
            self.remove()

    def close(self) -> None:
        """Keep the file for a later run, unless no layer is in it."""
        if self._file is None:
            return
        empty = self._file.seek(0, os.SEEK_END) == 0
        self._file.close()
        self._file = None
        if empty:
            self.path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the file: the checkpoint is finished."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


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
