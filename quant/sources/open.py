"""Open whatever a path points to."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import SourceError
from .base import TensorSource
from .completed import CompletedSource
from .gguf_file import GgufFile
from .hub import HUB, fetch_from_hub
from .model_folder import model_in_folder
from .prefixed import PrefixedSource, find_prefix
from .qwen_edit import with_2511_marker
from .recognised import require_complete, require_model
from .renamed import in_comfy_names
from .safetensors_file import SafetensorsFile
from .shards import open_folder, open_index

_QUANTIZED_SUFFIXES = (".comfy_quant", ".scale_weight", ".weight_scale", ".weight_scale_2")
_QUANTIZED_NAMES = ("scaled_fp8",)
FLOAT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


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
    path: str | Path, complete_from: str | Path | None = None, *, edit_2511: bool = False
) -> TensorSource:
    """Open a model to quantize: ComfyUI's names without prefix, 16- or 32-bit weights.

    Args:
        path: as for `open_tensors`.
        complete_from: where to take tensors from that the model lacks, of the same kinds.
        edit_2511: whether a Qwen-Image model without a marker is meant to be Edit 2511.

    Raises:
        SourceError: as `open_tensors`; or the model is quantized already, incomplete, or no model.
    """
    model = _open_model(path)
    try:
        if complete_from is not None:
            model = _completed(model, complete_from)
        require_complete(model)
        return with_2511_marker(model, asked_for=edit_2511)
    except BaseException:
        model.close()
        raise


def _open_model(path: str | Path) -> TensorSource:
    source = open_tensors(path)
    try:
        require_model(source)
        prefix = find_prefix(source.tensors)
        model = PrefixedSource(source, prefix) if prefix else source
        require_unquantized(model)
        return in_comfy_names(model)
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


def require_unquantized(source: TensorSource) -> None:
    """Refuse a source whose weights are quantized: their scales would be ignored.

    Raises:
        SourceError: naming a quantized tensor.
    """
    for name, info in source.tensors.items():
        marked = name.endswith(_QUANTIZED_SUFFIXES) or name in _QUANTIZED_NAMES
        low = name.endswith(".weight") and info.dtype not in FLOAT_DTYPES
        if marked or low:
            raise SourceError(
                f"{source.description} is quantized already ({name} is {info.dtype}); "
                "start from the bf16, fp16 or fp32 model"
            )
