"""Open the source that a path points to."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..errors import SourceError
from .base import TensorSource
from .completed import CompletedSource
from .gguf_file import GgufFile
from .hub import HUB, fetch_from_hub
from .model_folder import model_in_folder
from .prefixed import PrefixedSource, find_prefix
from .quantized import decoded, decoded_where_known
from .qwen_edit import with_2511_marker
from .recognised import require_complete, require_model
from .renamed import in_comfy_names
from .safetensors_file import SafetensorsFile
from .shards import open_folder, open_index


def local_path(path: str | Path) -> Path:
    """Return a local path. Files on the Hub are fetched.

    Raises:
        SourceError: the file cannot be fetched.
    """
    return fetch_from_hub(str(path)) if str(path).startswith(HUB) else Path(path)


def open_tensors(path: str | Path) -> TensorSource:
    """Open a safetensors or GGUF file, an index or a folder, locally or on the Hub, as stored.

    Raises:
        SourceError: the path does not exist, or cannot be opened as any of these.
    """
    if str(path).startswith(HUB):
        source = open_tensors(local_path(path))
        source.notes = (*source.notes, f"fetched from {path}")
        return source
    path = Path(path)
    if path.is_dir():
        path = model_in_folder(path)
    if path.is_dir():
        return open_folder(path)
    if not path.is_file():
        raise SourceError(f"{path} does not exist")
    if path.name.endswith(".index.json"):
        return open_index(path)
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise SourceError(
            f"{path} is a pickle file, which can run code when it is opened; convert it to "
            "safetensors first"
        )
    return GgufFile(path) if path.suffix.lower() == ".gguf" else SafetensorsFile(path)


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
    model = _open_model(path, layout)
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

    Weights that cannot be decoded are listed as they are stored (see `is_readable`).

    Raises:
        SourceError: the path cannot be opened.
        CheckpointError: a marker is damaged.
    """
    source = open_tensors(path)
    try:
        prefix = find_prefix(source.tensors)
        model = PrefixedSource(source, prefix) if prefix else source
        return in_comfy_names(decoded_where_known(model, layout))
    except BaseException:
        source.close()
        raise


def _open_model(path: str | Path, layout: str) -> TensorSource:
    source = open_tensors(path)
    try:
        require_model(source)
        prefix = find_prefix(source.tensors)
        model = PrefixedSource(source, prefix) if prefix else source
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
