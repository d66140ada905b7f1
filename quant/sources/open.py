"""Open whatever a path points to."""

from __future__ import annotations

from pathlib import Path

from ..errors import SourceError
from .base import TensorSource
from .prefixed import PrefixedSource, find_prefix
from .quantized import decoded
from .safetensors_file import SafetensorsFile
from .shards import open_folder, open_index


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
    """Open a model to quantize: unprefixed names, quantized weights decoded.

    Raises:
        SourceError: as `open_tensors`, or the model is quantized in a way not known here.
    """
    source = open_tensors(path)
    try:
        prefix = find_prefix(source.tensors)
        return decoded(PrefixedSource(source, prefix) if prefix else source)
    except BaseException:
        source.close()
        raise
