"""Where tensors come from: files, shards, GGUF, the Hub, state dicts."""

from .base import AppliedLora, TensorInfo, TensorSource
from .gguf_file import GgufFile
from .open import local_path, open_source, open_tensors, require_unquantized
from .prefixed import PrefixedSource, find_prefix
from .renamed import find_naming, in_comfy_names
from .safetensors_file import DTYPE_NAMES, DTYPES, SafetensorsFile
from .shards import ShardedSource
from .state_dict import StateDictSource

__all__ = [
    "DTYPES",
    "DTYPE_NAMES",
    "AppliedLora",
    "GgufFile",
    "PrefixedSource",
    "SafetensorsFile",
    "ShardedSource",
    "StateDictSource",
    "TensorInfo",
    "TensorSource",
    "find_naming",
    "find_prefix",
    "in_comfy_names",
    "local_path",
    "open_source",
    "open_tensors",
    "require_unquantized",
]
