"""Open the source that a path points to."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..errors import CheckpointError, SourceError
from .base import TensorSource
from .completed import CompletedSource
from .hub import HUB, fetch_from_hub
from .model_folder import model_in_folder
from .prefixed import require_one_model, without_prefix
from .quantized import decoded, decoded_where_known
from .qwen_edit import with_2511_marker
from .recognised import require_complete, require_model
from .renamed import in_comfy_names
from .shards import INDEX_ENDING, open_folder, open_index, open_part_or_file


def local_path(path: str | Path) -> Path:
    """Return a local path. Files on the Hub are fetched.

    Raises:
        SourceError: the file cannot be fetched.
    """
    return fetch_from_hub(str(path)) if str(path).startswith(HUB) else Path(path)


def open_tensors(path: str | Path, *, partial: bool = False) -> TensorSource:
    """Open a file, an index or a folder of a model, locally or on the Hub, as stored.

    ``partial`` opens what is there of a model of which other files are missing.

    Raises:
        SourceError: the path does not exist, or cannot be opened as any of these.
        IncompleteError: other files of the model are missing.
    """
    if str(path).startswith(HUB):
        source = open_tensors(local_path(path), partial=partial)
        source.notes = (*source.notes, f"fetched from {path}")
        return source
    path = Path(path)
    if path.is_dir():
        path = model_in_folder(path)
    if path.is_dir():
        return open_folder(path, partial=partial)
    if not path.is_file():
        raise SourceError(f"{path} does not exist")
    if path.name.endswith(INDEX_ENDING):
        return open_folder(path.parent, partial=True) if partial else open_index(path)
    return open_part_or_file(path, partial=partial)


def open_source(
    path: str | Path,
    complete_from: str | Path | None = None,
    *,
    meant_for: Collection[str] = (),
    layout: str = "",
) -> TensorSource:
    """Open a model to quantize: with ComfyUI's names, without prefix, with decoded weights.

    Args:
        path: a path that `open_tensors` opens.
        complete_from: a second path, from which to take tensors that the model lacks.
        meant_for: ids of the architectures that the recipe is for; empty: any. They decide which
            model it is where the weights of two models look alike (see ``qwen_edit``).
        layout: whose layout NVFP4 weights without markers have (``comfyui`` or ``modelopt``);
            empty: the file has to show it.

    Raises:
        SourceError: the path cannot be opened, the file is not a model, tensors are missing, or
            quantized weights cannot be decoded.
    """
    model = _open_model(path, layout, partial=complete_from is not None)
    try:
        if complete_from is not None:
            model = _completed(model, complete_from, layout)
        require_complete(model)
        return with_2511_marker(model, meant_for)
    except BaseException:
        model.close()
        raise


def open_to_look(path: str | Path, layout: str = "") -> TensorSource:
    """Open any file to inspect it: with ComfyUI's names, without prefix, decoded if possible.

    Weights that cannot be decoded are listed as they are stored (see `is_readable`). So is a file
    of which nothing else is understood, and what is there of a model with missing files.

    Raises:
        SourceError: the path cannot be opened.
    """
    source = open_tensors(path, partial=True)
    try:
        try:
            return in_comfy_names(decoded_where_known(without_prefix(source), layout), to_look=True)
        except (SourceError, CheckpointError):
            return source
    except BaseException:
        source.close()
        raise


def _open_model(path: str | Path, layout: str, *, partial: bool = False) -> TensorSource:
    source = open_tensors(path, partial=partial)
    try:
        require_model(source)
        model = without_prefix(source)
        require_one_model(model)
        require_model(model)
        return in_comfy_names(decoded(model, layout))
    except BaseException:
        source.close()
        raise


def _completed(model: TensorSource, complete_from: str | Path, layout: str) -> TensorSource:
    second = _open_model(complete_from, layout)
    try:
        return CompletedSource(model, second)
    except BaseException:
        second.close()
        raise
