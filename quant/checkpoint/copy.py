"""Copy a checkpoint to another name."""

from __future__ import annotations

from pathlib import Path

from ..formats.base import TensorSpec
from ..progress import OnProgress, numbered
from ..sources import open_tensors
from .writer import CheckpointWriter


def copy_checkpoint(
    path: Path, target: Path, *, overwrite: bool = False, on_progress: OnProgress | None = None
) -> None:
    """Copy a checkpoint, with one tensor in memory. The copy appears complete or not at all.

    Raises:
        SourceError: the checkpoint cannot be read, or changed meanwhile.
        FileError, CheckpointError: the copy cannot be written.
    """
    with open_tensors(path) as file:
        specs = {name: TensorSpec(info.shape, info.dtype) for name, info in file.tensors.items()}
        total, done = sum(spec.nbytes for spec in specs.values()), 0
        with CheckpointWriter(target, specs, file.metadata, overwrite=overwrite) as writer:
            for number, (name, spec) in enumerate(specs.items(), 1):
                writer.write(name, file.load(name))
                done += spec.nbytes
                if on_progress:
                    on_progress(done, total, numbered("tensor", number, len(specs), name))
            file.require_unchanged()
            file.close()  # Windows cannot replace an open file
            writer.commit()
