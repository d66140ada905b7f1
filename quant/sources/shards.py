"""A model in several files, listed in an ``*.index.json`` or kept in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..errors import IncompleteError, SourceError
from ..files.json_file import read_json
from ..text import shorten
from .base import TensorInfo, TensorSource
from .numbered_files import Part, describe_missing, missing_parts, part_of, parts_beside, sets_of
from .single_file import open_file
from .stored_layers import joined_metadata

INDEX_ENDING = ".index.json"
_LONGEST_FILE_NAME = 200
_WAY_OUT = "fetch the missing files into the same folder, or start from a file of the whole model"


class ShardedSource(TensorSource):
    """Several shards as one source. Each tensor is in exactly one shard."""

    def __init__(self, paths: list[Path], description: str):
        self.description = description
        self.paths = (*paths, Path(description))
        self.metadata = {}
        self._shards: list[TensorSource] = []
        self._owner: dict[str, TensorSource] = {}
        self._tensors: dict[str, TensorInfo] = {}
        try:
            for path in paths:
                self._add(open_file(path))
        except BaseException:
            self.close()
            raise
        self.comfyui_reads = False  # its loaders take one file
        self.notes = tuple(dict.fromkeys(note for shard in self._shards for note in shard.notes))

    def _add(self, shard: TensorSource) -> None:
        self._shards.append(shard)
        self.metadata = joined_metadata(self.metadata, shard.metadata)
        for name, info in shard.tensors.items():
            if name in self._owner:
                first, second = (Path(s.description).name for s in (self._owner[name], shard))
                raise SourceError(
                    f"{name} is in both {first} and {second}; "
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

    def require_unchanged(self) -> None:
        """Refuse shards that changed since they were opened."""
        for shard in self._shards:
            shard.require_unchanged()

    def close(self) -> None:
        """Close all shards."""
        for shard in self._shards:
            shard.close()


def open_part_or_file(path: Path, *, partial: bool = False) -> TensorSource:
    """Open a file. If it is one of several parts by its name, open all of them.

    ``partial`` opens what is there of a model whose parts are not all beside the file.

    Raises:
        IncompleteError: other parts are missing.
    """
    part = part_of(path)
    if part is None:
        return open_file(path)
    index = _index_of(path)
    if index is not None and not partial:
        source: TensorSource = open_index(index)
        source.notes = (*source.notes, f"{path.name} is one of several, as {index.name} lists them")
        return source
    parts = parts_beside(part)
    missing = missing_parts(parts)
    if missing and not partial:
        raise IncompleteError(
            f"{path} is part {part.number} of {part.count} of a model, but "
            f"{describe_missing(part, missing)} {_is(missing)} not beside it; {_WAY_OUT}, or give "
            "that as --complete-from (in the nodes: complete_from)"
        )
    if len(parts) == 1:
        return open_file(path)
    source = ShardedSource([p.path for p in parts], str(path))
    source.notes = (*source.notes, f"{path.name} is opened with the other parts beside it")
    return source


def what_is_missing(path: Path) -> str | None:
    """Return which parts of a model are missing beside one of them, in words; None if none are."""
    part = part_of(path)
    missing = missing_parts(parts_beside(part)) if part else []
    if not part or not missing:
        return None
    return f"part {part.number} of {part.count} of a model: {describe_missing(part, missing)}"


def open_index(path: Path) -> ShardedSource:
    """Open the shards that an ``index.json`` lists, and check that they agree with it.

    Raises:
        SourceError: the index is malformed, or shards or tensors are missing.
    """
    weight_map = _weight_map(path)
    files = sorted(set(weight_map.values()))
    missing = [name for name in files if not (path.parent / name).is_file()]
    if missing:
        raise IncompleteError(
            f"{path} lists shards that are not beside it: {shorten(missing)}; fetch them"
        )
    _require_all_parts([path.parent / name for name in files], str(path))
    source = ShardedSource([path.parent / name for name in files], str(path))
    absent = sorted(set(weight_map) - set(source.tensors))
    if absent:
        source.close()
        raise IncompleteError(
            f"{path} lists {len(absent)} tensors that its shards lack, e.g. {absent[0]}; "
            "a shard may be of another version, so fetch all of them again"
        )
    return source


def open_folder(folder: Path, *, partial: bool = False) -> TensorSource:
    """Open the model in a folder: its index, or all of its files.

    Raises:
        SourceError: the folder holds no model, or several.
        IncompleteError: parts of the model are missing (unless ``partial``).
    """
    files = sorted(folder.glob("*.safetensors")) or _torch_shards(folder)
    kind = ".safetensors" if not files or files[0].suffix == ".safetensors" else ".bin"
    indices = sorted(folder.glob(f"*{kind}{INDEX_ENDING}"))
    if len(indices) == 1 and not partial:
        return open_index(indices[0])
    if len(indices) > 1:
        names = ", ".join(p.name for p in indices)
        raise SourceError(f"{folder} holds several models: give one of {names}")
    if not files:
        raise SourceError(f"{folder} holds no .safetensors file; give a folder or file of a model")
    if not partial:
        _require_all_parts(files, str(folder))
    if len(files) == 1:
        return open_file(files[0])
    return ShardedSource(files, str(folder))


def _require_all_parts(files: list[Path], where: str) -> None:
    """Refuse files whose names say that there are more, or that they are of several models.

    Raises:
        IncompleteError: the message names what is missing.
    """
    sets = sets_of(files)
    for parts in sets.values():
        missing = missing_parts(parts)
        if missing:
            raise IncompleteError(
                f"{where} holds {len(parts)} of {parts[0].count} parts of a model; missing "
                f"{_is(missing)} {describe_missing(parts[0], missing)}; {_WAY_OUT}"
            )
    if len(sets) > 1:
        firsts = ", ".join(_first(parts).path.name for parts in sets.values())
        raise SourceError(
            f"{where} holds several models: give the first part of one of them ({firsts})"
        )


def _first(parts: list[Part]) -> Part:
    return min(parts, key=lambda part: part.number)


def _is(names: list[int]) -> str:
    return "is" if len(names) == 1 else "are"


def _weight_map(path: Path) -> Mapping[str, str]:
    try:
        weight_map = read_json(path)["weight_map"]
        files = set(weight_map.values())
        if not all(isinstance(name, str) for name in files):
            raise TypeError("a shard has no name")
        if max(map(len, files), default=0) > _LONGEST_FILE_NAME:
            raise ValueError("a shard has a name that no file has")
    except OSError as error:
        raise SourceError(f"cannot open {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{path} is not a safetensors index: it has no weight_map") from error
    outside = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise SourceError(
            f"{path} is not a safetensors index: it names {outside[0]}, which is not in its folder"
        )
    return weight_map


def _index_of(path: Path) -> Path | None:
    """Return the one index beside a file that lists it; None if there is none."""
    found = []
    for index in path.parent.glob(f"*{INDEX_ENDING}"):
        try:
            if path.name in _weight_map(index).values():
                found.append(index)
        except SourceError:
            continue
    return found[0] if len(found) == 1 else None


def _torch_shards(folder: Path) -> list[Path]:
    """Return the numbered pickle files of a folder."""
    return sorted(path for path in folder.glob("*.bin") if part_of(path))
