"""Where tensors come from: files, shards, state dicts."""

from .base import AppliedLora, TensorInfo, TensorSource
from .open import open_source, open_tensors, require_unquantized
from .prefixed import PrefixedSource, find_prefix
from .safetensors_file import DTYPE_NAMES, DTYPES, SafetensorsFile
from .shards import ShardedSource
from .state_dict import StateDictSource

__all__ = [
    "DTYPES",
    "DTYPE_NAMES",
    "AppliedLora",
    "PrefixedSource",
    "SafetensorsFile",
    "ShardedSource",
    "StateDictSource",
    "TensorInfo",
    "TensorSource",
    "find_prefix",
    "open_source",
    "open_tensors",
    "require_unquantized",
]
