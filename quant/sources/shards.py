"""A model in several safetensors files, listed in an ``*.index.json`` or kept in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..errors import SourceError
from .base import TensorInfo, TensorSource
from .safetensors_file import SafetensorsFile
from .stored_layers import joined_metadata


class ShardedSource(TensorSource):
    """Several shards as one source. Each tensor is in exactly one shard."""

    def __init__(self, paths: list[Path], description: str):
        self.description = description
        self.paths = (*paths, Path(description))
        self.metadata = {}
        self._shards: list[SafetensorsFile] = []
        self._owner: dict[str, SafetensorsFile] = {}
        self._tensors: dict[str, TensorInfo] = {}
        try:
            for path in paths:
                self._add(SafetensorsFile(path))
        except BaseException:
            self.close()
            raise

    def _add(self, shard: SafetensorsFile) -> None:
        self._shards.append(shard)
        self.metadata = joined_metadata(self.metadata, shard.metadata)
        for name, info in shard.tensors.items():
            if name in self._owner:
                raise SourceError(
                    f"{name} is in both {self._owner[name].path.name} and {shard.path.name}; "
                    "give the index.json or the file of one model instead of the folder"
                )
            self._owner[name] = shard
            self._tensors[name] = info

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors of all shards."""
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        """Read one tensor from the shard that holds it."""
        self.info(name)
        return self._owner[name].load(name)

    def load_runs(self, name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        """Read parts of a tensor from the shard that holds it."""
        self.info(name)
        return self._owner[name].load_runs(name, starts, length)

    def close(self) -> None:
        """Close all shards."""
        for shard in self._shards:
            shard.close()


def open_index(path: Path) -> ShardedSource:
    """Open the shards that an ``index.json`` lists, and check that they agree with it.

    Raises:
        SourceError: the index is malformed, or shards or tensors are missing.
    """
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(weight_map.values()))
        missing = [name for name in files if not (path.parent / name).is_file()]
    except OSError as error:
        raise SourceError(f"cannot open {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{path} is not a safetensors index: it has no weight_map") from error
    if missing:
        raise SourceError(
            f"{path} lists shards that are not beside it: {', '.join(missing)}; fetch them"
        )
    source = ShardedSource([path.parent / name for name in files], str(path))
    absent = sorted(set(weight_map) - set(source.tensors))
    if absent:
        source.close()
        raise SourceError(
            f"{path} lists {len(absent)} tensors that its shards lack, e.g. {absent[0]}; "
            "a shard may be of another version, so fetch all of them again"
        )
    return source


def open_folder(folder: Path) -> TensorSource:
    """Open the model in a folder: its index, or all of its safetensors files.

    Raises:
        SourceError: the folder holds no safetensors file, or several indices.
    """
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) == 1:
        return open_index(indices[0])
    if indices:
        names = ", ".join(p.name for p in indices)
        raise SourceError(f"{folder} holds several models: give one of {names}")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SourceError(f"{folder} holds no .safetensors file; give a folder or file of a model")
    if len(files) == 1:
        return SafetensorsFile(files[0])
    return ShardedSource(files, str(folder))
