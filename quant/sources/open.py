"""Open whatever a path points to."""

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
    """Return a path on this machine, fetching what is on the Hub.

    Raises:
        SourceError: it cannot be fetched.
    """
    return fetch_from_hub(str(path)) if str(path).startswith(HUB) else Path(path)


def open_tensors(path: str | Path) -> TensorSource:
    """Open a safetensors or GGUF file, an index, a folder, or any of them on the Hub, as it is.

    Raises:
        SourceError: the path does not exist or is of no known kind.
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
            f"{path} is a pickle file, which can run code when opened; convert it to "
            "safetensors first"
        )
    return GgufFile(path) if path.suffix.lower() == ".gguf" else SafetensorsFile(path)


def open_source(
    path: str | Path,
    complete_from: str | Path | None = None,
    *,
    meant_for: Collection[str] = (),
) -> TensorSource:
    """Open a model to quantize: ComfyUI's names without prefix, quantized weights decoded.

    Args:
        path: as for `open_tensors`.
        complete_from: where to take tensors from that the model lacks, of the same kinds.
        meant_for: ids of the architectures that the recipe is for; empty: any. They decide where
            the weights of two models look alike (see ``qwen_edit``).

    Raises:
        SourceError: as `open_tensors`; or the file is no model, lacks parts of one, or is
            quantized in a way not known here.
    """
    model = _open_model(path)
    try:
        if complete_from is not None:
            model = _completed(model, complete_from)
        require_complete(model)
        return with_2511_marker(model, meant_for)
    except BaseException:
        model.close()
        raise


def open_to_look(path: str | Path) -> TensorSource:
    """Open any file to look into: ComfyUI's names without prefix, decoded where that is known.

    What cannot be decoded is listed as it is stored (see `is_readable`); nothing else is refused.

    Raises:
        SourceError: as `open_tensors`.
        CheckpointError: its markers are damaged.
    """
    source = open_tensors(path)
    try:
        prefix = find_prefix(source.tensors)
        model = PrefixedSource(source, prefix) if prefix else source
        return in_comfy_names(decoded_where_known(model))
    except BaseException:
        source.close()
        raise


def _open_model(path: str | Path) -> TensorSource:
    source = open_tensors(path)
    try:
        require_model(source)
        prefix = find_prefix(source.tensors)
        return in_comfy_names(decoded(PrefixedSource(source, prefix) if prefix else source))
    except BaseException:
        source.close()
        raise


def _completed(model: TensorSource, complete_from: str | Path) -> TensorSource:
    second = _open_model(complete_from)
    try:
        return CompletedSource(model, second)
    except BaseException:
        second.close()
        raise
