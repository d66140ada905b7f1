"""Scales that are in a file of their own, as those of HunyuanVideo's official float8 model.

Its ``..._fp8.pt`` has codes only, and ``..._fp8_map.pt`` beside it a number for each layer, by the
layer's name. Source: Tencent/HunyuanVideo: hyvideo/modules/fp8_optimization.py. Other tools keep
such a map as safetensors.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import SourceError
from ..base import TensorSource
from ..safetensors_file import SafetensorsFile
from ..state_dict import StateDictSource
from ..stored_weight import StoredWeight
from ..view import SourceView
from .other_scales import NAMES
from .scaled_codes import CODES

#: The name that the scales get beside their weight.
_SUFFIX = "fp8_scale"
_ENDINGS = ("_map", "_scales", "_scale")
_LARGEST = 1 << 28
_PREFIXES = ("model.diffusion_model.", "module.", "model.", "transformer.", "_orig_mod.")
_LEAVES = (".weight_scale", ".scale_weight", ".weight", *(f".{name}" for name in NAMES))


class MappedSource(SourceView):
    """A source with the scales of a map as tensors beside their weights."""

    def __init__(self, source: TensorSource, path: Path, scales: Mapping[str, torch.Tensor]):
        super().__init__(source, f"the scales of {len(scales)} weights are taken from {path}")
        self._scales = StateDictSource(
            {f"{layer}.{_SUFFIX}": scale for layer, scale in scales.items()}, str(path)
        )
        self._tensors = {**source.tensors, **self._scales.tensors}
        self.paths = (*source.paths, path)
        self.comfyui_reads = False

    def _origin(self, name: str) -> tuple[TensorSource, str]:
        return (self._scales if name in self._scales.tensors else self._source), name

    def stored_weight(self, name: str) -> StoredWeight | None:
        """Return how the source stores a weight."""
        return None if name in self._scales.tensors else super().stored_weight(name)


def with_scale_map(source: TensorSource) -> TensorSource:
    """Return the source with the scales of the map beside its file, if it needs one.

    Raises:
        SourceError: there is a map, but it cannot be read, or does not belong to the model.
    """
    path = _map_path(source)
    bare = set(_bare_layers(source)) if path else set()
    if path is None or not bare:
        return source
    scales = {layer: scale for layer, scale in _read_map(path, source.prefix) if layer in bare}
    if not scales:
        raise SourceError(
            f"{path} lies beside {source.description}, but has no scale for any of its 8-bit "
            "weights; put the map of this model there, or move the file away"
        )
    return MappedSource(source, path, scales)


def _map_path(source: TensorSource) -> Path | None:
    if len(source.paths) != 1:
        return None
    path = source.paths[0]
    for ending in _ENDINGS:
        for suffix in (".safetensors", ".pt", ".pth", ".bin"):
            candidate = path.with_name(f"{path.stem}{ending}{suffix}")
            if candidate.is_file():
                return candidate
    return None


def _bare_layers(source: TensorSource) -> Iterator[str]:
    """Yield the layers with 8-bit codes and nothing that could be their scale."""
    for name, info in source.tensors.items():
        if name.endswith(".weight") and info.dtype in CODES:
            layer = name.removesuffix(".weight")
            leaves = (".comfy_quant", *_LEAVES)
            if not any(f"{layer}{leaf}" in source.tensors for leaf in leaves if leaf != ".weight"):
                yield layer


def _read_map(path: Path, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for key, value in _entries(path).items():
        if isinstance(value, (int, float)):
            value = torch.tensor(float(value))
        if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
            continue
        name = key.removeprefix(prefix)
        for start in _PREFIXES:
            name = name.removeprefix(start)
        for leaf in _LEAVES:
            if name.endswith(leaf):
                name = name.removesuffix(leaf)
                break
        yield name, value.detach().float()


def _entries(path: Path) -> dict[str, Any]:
    """Read a map. A pickle is read by torch's loader for weights, which runs no code of it.

    Raises:
        SourceError: the file is not a map from names to numbers.
    """
    if path.stat().st_size > _LARGEST:
        raise SourceError(f"{path} is too large to hold only scales; move it away from the model")
    if path.suffix == ".safetensors":
        with SafetensorsFile(path) as file:
            return {name: file.load(name) for name in file.tensors}
    try:
        entries = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise SourceError(
            f"{path} holds the scales of the model beside it, but cannot be read: {reason}; fetch "
            "it again, or save the scales as safetensors under the same name"
        ) from error
    if not isinstance(entries, dict):
        raise SourceError(f"{path} is not a map from layers to scales; fetch it again")
    return {str(name): value for name, value in entries.items()}
