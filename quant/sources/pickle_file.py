"""A file of ``torch.save`` as a source, read by torch's loader of weights.

A pickle can run code when it is opened. ``torch.load(weights_only=True)`` builds tensors and plain
containers and refuses everything else. Before torch 2.6 it could be tricked (CVE-2025-32434), so
older versions are not used for it.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..errors import SourceError, is_out_of_memory
from ..text import shorten
from .base import TensorInfo, TensorSource
from .plain_reads import open_unbuffered
from .safetensors_header import require_short_name
from .witness import FileWitness

_SAFE_TORCH = (2, 6)
_CONVERT = (
    "convert it to safetensors first, with the tool that wrote it or with ComfyUI's Save Checkpoint"
)
#: Where training scripts put the weights in their checkpoint, the most usual first. Averages of the
#: weights come last, as ComfyUI takes the weights themselves.
_NESTED = (
    "state_dict", "model_state_dict", "model", "module", "net", "generator", "params", "weights",
    "ema_state_dict", "ema_model", "model_ema", "params_ema", "generator_ema", "ema",
)  # fmt: skip
_DEEPEST = 4
# By such a name, torch would read the file as safetensors.
_NOT_MAPPED = (".safetensors", ".sft")
# Torch names the class that it refuses to build in its message.
_REFUSED = re.compile(r"(?:GLOBAL|Unsupported (?:class|global:? GLOBAL)|function) ([\w.]+)")


class PickleFile(TensorSource):
    """The tensors in a file of ``torch.save``, mapped from the file where its format allows it.

    Raises:
        SourceError: the file is damaged, holds more than tensors and plain values, or no tensors.
    """

    def __init__(self, path: Path):
        self.path = path
        self.paths = (path,)
        self.description = str(path)
        self.metadata = {}
        self.comfyui_reads = False  # it may take another part of the file for the weights
        self._file = open_unbuffered(path)
        try:
            self._witness = FileWitness(path, self._file)
            loaded, in_memory = _load(path)
            self._state, notes = _find_weights(loaded, path)
        except BaseException:
            self._file.close()
            raise
        if in_memory:
            notes.append("torch cannot map this file, so all of it is in memory")
        self.notes = tuple(notes)
        self._tensors = {
            name: TensorInfo(name, tuple(tensor.shape), tensor.dtype)
            for name, tensor in self._state.items()
        }

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the file's order."""
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        """Return a copy of one tensor."""
        self.info(name)
        return self._state[name].detach().clone(memory_format=torch.contiguous_format)

    def require_unchanged(self) -> None:
        """Refuse a file that changed since it was opened."""
        self._witness.require_unchanged()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _load(path: Path) -> tuple[Any, bool]:
    """Return what the file holds, and whether it had to be read into memory.

    Raises:
        SourceError: torch refuses it, or is too old to read it safely.
    """
    if _torch_version() < _SAFE_TORCH:
        raise SourceError(
            f"{path} is a pickle file, which torch {torch.__version__} does not read safely; "
            f"update torch to 2.6 or newer, or {_CONVERT}"
        )
    try:
        try:
            if path.suffix.lower() not in _NOT_MAPPED:
                return _weights(path, mmap=True), False
        except RuntimeError as error:  # a file of the format before torch 1.6
            if "mmap can only be used" not in str(error):
                raise
        with path.open("rb") as file:
            return _weights(file, mmap=False), True
    except Exception as error:  # whatever a damaged pickle makes torch do
        if is_out_of_memory(error):
            raise
        raise SourceError(_why_refused(path, error)) from error


def _weights(file: Path | BinaryIO, *, mmap: bool) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)


def _torch_version() -> tuple[int, int]:
    major, minor, *_ = torch.__version__.split(".")
    return int(major), int(minor)


def _why_refused(path: Path, error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        found = _REFUSED.search(str(error))
        what = f" ({found[1]})" if found else ""
        return (
            f"{path} is a pickle file that holds more than tensors{what}, and loading that could "
            f"run code, so it is not loaded; {_CONVERT}"
        )
    if "TorchScript" in str(error):
        return f"{path} is a TorchScript program, not a file of weights; {_CONVERT}"
    first = str(error).strip().splitlines() or [type(error).__name__]
    return f"{path} is a damaged or truncated file of torch ({first[0][:160]}); fetch it again"


def _find_weights(loaded: Any, path: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the tensors of the model in what the file holds, and notes on where they were.

    Raises:
        SourceError: there are none.
    """
    notes: list[str] = []
    found = loaded
    for _ in range(_DEEPEST):
        if not isinstance(found, Mapping):
            break
        tensors = _tensors_in(found)
        inside = [key for key in found if isinstance(found[key], Mapping)]
        named = [key for key in _NESTED if key in inside and _holds_tensors(found[key])]
        if not named and len(found) == 1:
            named = [key for key in inside if _holds_tensors(found[key])]
        if not named or len(tensors) > len(_tensors_in(found[named[0]])):
            if tensors:
                return _plain(tensors, path), notes
            break
        chosen, others = named[0], [str(key) for key in found if key != named[0]]
        if others:
            notes.append(f"the weights are those in {chosen!r}; not read: {shorten(others)}")
        found = found[chosen]
    raise SourceError(
        f"{path} is a file of torch without the tensors of a model; choose a file with a model"
    )


def _tensors_in(values: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    return {str(k): v for k, v in values.items() if isinstance(v, torch.Tensor)}


def _holds_tensors(values: Mapping[Any, Any]) -> bool:
    """Whether there are tensors in a mapping, or in one that it holds."""
    inner = [value for value in values.values() if isinstance(value, Mapping)]
    return bool(_tensors_in(values)) or any(_tensors_in(value) for value in inner)


def _plain(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Refuse tensors whose values are not simply in their storage.

    Raises:
        SourceError: the message names one.
    """
    for name, tensor in tensors.items():
        require_short_name(name, path)
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise SourceError(
                f"{path}: tensor {name} is sparse, quantized by torch, or has no values; {_CONVERT}"
            )
    return dict(tensors)
