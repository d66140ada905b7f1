"""Open one file of tensors by what it is, not by what its name says."""

from __future__ import annotations

from pathlib import Path

from .base import TensorSource
from .gguf_file import GgufFile
from .pickle_file import PickleFile
from .pretender import kind_of_file
from .safetensors_file import SafetensorsFile

_USUAL = {
    "safetensors": (".safetensors", ".sft"),
    "gguf": (".gguf",),
    "torch": (".ckpt", ".pt", ".pth", ".bin", ".pkl"),
}
_TITLES = {"safetensors": "a safetensors file", "gguf": "a GGUF file", "torch": "a file of torch"}
#: How the names of files end that may hold a model.
ENDINGS = tuple(ending for endings in _USUAL.values() for ending in endings)


def open_file(path: Path) -> TensorSource:
    """Open one safetensors, GGUF or torch file, as stored.

    Raises:
        SourceError: it is none of them, or damaged.
    """
    kind = kind_of_file(path)
    source: TensorSource
    if kind == "gguf":
        source = GgufFile(path)
    elif kind == "torch":
        source = PickleFile(path)
    else:
        source = SafetensorsFile(path)
    if path.suffix.lower() in ENDINGS and path.suffix.lower() not in _USUAL[kind]:
        source.notes = (*source.notes, f"{path.name} is {_TITLES[kind]}, whatever its name says")
    return source
