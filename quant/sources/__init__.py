"""Sources of tensors: files, shards, GGUF, the Hub and state dicts."""

from .base import AppliedLora, StoredAs, TensorInfo, TensorSource
from .gguf_file import GgufFile
from .open import local_path, open_source, open_tensors, open_to_look
from .prefixed import PrefixedSource, find_prefix, loaded_names, without_prefix
from .quantized import decoded, is_readable
from .renamed import find_naming, in_comfy_names
from .safetensors_file import DTYPE_NAMES, DTYPES, SafetensorsFile
from .shards import ShardedSource
from .state_dict import StateDictSource
from .stored_weight import StoredWeight

__all__ = [
    "DTYPES",
    "DTYPE_NAMES",
    "AppliedLora",
    "GgufFile",
    "PrefixedSource",
    "SafetensorsFile",
    "ShardedSource",
    "StateDictSource",
    "StoredAs",
    "StoredWeight",
    "TensorInfo",
    "TensorSource",
    "decoded",
    "find_naming",
    "find_prefix",
    "in_comfy_names",
    "is_readable",
    "loaded_names",
    "local_path",
    "open_source",
    "open_tensors",
    "open_to_look",
    "without_prefix",
]
