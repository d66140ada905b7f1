"""Where tensors come from: files, shards, state dicts."""

from .base import AppliedLora, StoredAs, TensorInfo, TensorSource
from .open import open_source, open_tensors
from .prefixed import PrefixedSource, find_prefix
from .quantized import decoded
from .safetensors_file import DTYPE_NAMES, DTYPES, SafetensorsFile
from .shards import ShardedSource
from .state_dict import StateDictSource
from .stored_weight import StoredWeight

__all__ = [
    "DTYPES",
    "DTYPE_NAMES",
    "AppliedLora",
    "PrefixedSource",
    "SafetensorsFile",
    "ShardedSource",
    "StateDictSource",
    "StoredAs",
    "StoredWeight",
    "TensorInfo",
    "TensorSource",
    "decoded",
    "find_prefix",
    "open_source",
    "open_tensors",
]
