"""Open whatever a path points to."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import SourceError
from .base import TensorSource
from .prefixed import PrefixedSource, find_prefix
from .safetensors_file import SafetensorsFile
from .shards import open_folder, open_index

_QUANTIZED_SUFFIXES = (".comfy_quant", ".scale_weight", ".weight_scale", ".weight_scale_2")
_QUANTIZED_NAMES = ("scaled_fp8",)
FLOAT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def open_tensors(path: str | Path) -> TensorSource:
    """Open a safetensors file, an index, or a folder of shards, as it is.

    Raises:
        SourceError: the path does not exist or is of no known kind.
    """
    path = Path(path)
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
    if path.suffix == ".gguf":
        raise SourceError(f"{path}: GGUF files are not a supported source yet; use safetensors")
    return SafetensorsFile(path)


def open_source(path: str | Path) -> TensorSource:
    """Open a model to quantize: unprefixed names, 16- or 32-bit weights.

    Raises:
        SourceError: as `open_tensors`, or the model is quantized already.
    """
    source = open_tensors(path)
    try:
        prefix = find_prefix(source.tensors)
        model = PrefixedSource(source, prefix) if prefix else source
        require_unquantized(model)
    except BaseException:
        source.close()
        raise
    return model


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
