"""The weights of a MODEL as a source: read from its file if that is known, LoRAs applied."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...quant.errors import CheckpointError, FileError, IncompleteError, SourceError
from ...quant.planning import require_whole, take_inventory
from ...quant.sources import (
    AppliedLora,
    StateDictSource,
    StoredWeight,
    TensorInfo,
    TensorSource,
    decoded,
    open_source,
)
from ...quant.text import printable
from .loading import ModelFiles, model_files
from .merged_weights import (
    PREFIX,
    comfyui_linears,
    live_tensors,
    merged_info,
    merged_weight,
    patch_notes,
    patches_of,
)

_LIVE_ONLY = "the weights are read from memory"


class ModelSource(TensorSource):
    """The diffusion model of a MODEL, LoRAs and merges applied, one tensor at a time.

    Reads the weights from the file that the MODEL was loaded from, if it is known, because ComfyUI
    may have cast them since. Applies patches to these weights in float32. Decodes weights that are
    already quantized with their own scales. ``loras`` are the files that are known to be applied
    (see ``applied_loras``), for the report.

    Raises:
        SourceError: the MODEL is quantized in an unknown way.
    """

    _kind = "MODEL"
    _prefix = PREFIX

    def __init__(self, model: Any, loras: tuple[AppliedLora, ...] = ()):
        self._model = model
        live = live_tensors(model, self._module(), self._prefix)
        self.linear_layers = comfyui_linears(self._module())
        self._live = decoded(StateDictSource(live, self._kind))
        self._file = self._open_file()
        self.description = self._file.description if self._file else self._kind
        self.metadata = dict(self._file.metadata) if self._file else {}
        self.paths = self._file.paths if self._file else ()
        self._tensors = self._list_tensors()
        self.loras = loras if any(self._patches(name) for name in self._tensors) else ()
        self.notes = (*self._list_notes(), *patch_notes(model, loras, self._prefix))

    def _module(self) -> torch.nn.Module:
        return self._model.model.diffusion_model

    def _files(self) -> list[ModelFiles]:
        """Return the files that may hold the weights."""
        files = model_files(self._model)
        return [files] if files else []

    def _open_file(self) -> TensorSource | None:
        """Open the file of the MODEL, if it holds the same tensors.

        Raises:
            IncompleteError: it lacks a part. ComfyUI fills what is missing with uninitialised
                memory, so the live weights are no better.
        """
        for files in self._files():
            try:
                file = open_source(files.path, files.complete_from, layout=files.layout)
                require_whole(take_inventory(file))
            except IncompleteError:
                raise
            except (SourceError, CheckpointError, FileError) as error:
                logging.info("NVFP4 Foundry: %s; %s", error, _LIVE_ONLY)
                continue
            if self._is_of_same_layers(file):
                return file
            file.close()
            path = printable(str(files.path))
            logging.info("NVFP4 Foundry: %s uses other layer names; %s", path, _LIVE_ONLY)
        return None

    def _is_of_same_layers(self, file: TensorSource) -> bool:
        return all(
            name in file.tensors and file.info(name).shape == info.shape
            for name, info in self._live.tensors.items()
            if len(info.shape) == 2
        )

    def _list_tensors(self) -> dict[str, TensorInfo]:
        # ComfyUI renames some norms as it loads them; the file has their other names
        infos = {
            name: info
            for name, info in self._live.tensors.items()
            if not self._file or name in self._file.tensors or self._patches(name)
        }
        if self._file:
            infos.update(self._file.tensors)
        return {n: merged_info(self._model, info, self._prefix) for n, info in infos.items()}

    def _list_notes(self) -> tuple[str, ...]:
        return self._file.notes if self._file else (_LIVE_ONLY,)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors, by name without prefix."""
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        """Return one tensor on CPU: float32 if patches change it, else in its own dtype."""
        self.info(name)
        weight = self._origin(name).load(name)
        if self._patches(name):
            weight = merged_weight(self._model, name, weight, self._prefix)
        return weight.detach().cpu()

    def load_runs(self, name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        """Return parts of a tensor; only these are read from the file if no patch changes them."""
        if self._patches(name):
            return super().load_runs(name, starts, length)
        return self._origin(name).load_runs(name, starts, length)

    def stored_weight(self, name: str) -> StoredWeight | None:
        """Return how a quantized weight is stored, or None if it is not or a patch changes it."""
        if name not in self._tensors or self._patches(name):
            return None
        return self._origin(name).stored_weight(name)

    def _origin(self, name: str) -> TensorSource:
        """Return the source of an unpatched tensor."""
        return self._file if self._file and name in self._file.tensors else self._live

    def _patches(self, name: str) -> list[Any]:
        return patches_of(self._model, name, self._prefix)

    def require_unchanged(self) -> None:
        """Refuse a file that changed since it was opened."""
        if self._file:
            self._file.require_unchanged()

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
