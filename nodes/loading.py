"""A model file as a MODEL, and the files that a MODEL came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sd
import torch

from ..quant.errors import SourceError
from ..quant.formats.plain import cast_plain
from ..quant.sources import TensorSource, find_naming, find_prefix, open_source, open_tensors
from ..quant.sources.qwen_edit import with_2511_marker

_KEY = "nvfp4_foundry"


@dataclass(frozen=True)
class ModelFiles:
    """What a MODEL was loaded from."""

    path: Path
    complete_from: Path | None = None


def load_source_model(path: Path, complete_from: Path | None = None) -> Any:
    """Load a model file, index or folder as a MODEL through ComfyUI's own loader.

    ``complete_from`` is a file to take tensors from that the first lacks.

    Raises:
        SourceError: the file is unreadable or incomplete, or ComfyUI does not recognise the model.
    """
    if complete_from is None and _is_comfys_own(path):
        model = comfy.sd.load_diffusion_model(str(path))
    else:
        with open_source(path, complete_from) as source:
            state_dict = {name: _as_stored(source, name) for name in source.tensors}
            metadata = dict(source.metadata)
        model = comfy.sd.load_diffusion_model_state_dict(state_dict, metadata=metadata)
        if model is None:
            raise SourceError(f"ComfyUI does not recognise the model in {path}")
        # as the stock loader does for files, so that ComfyUI can load it again when it needs to
        model.cached_patcher_init = (_reload, (path, complete_from))
    model.set_attachments(_KEY, ModelFiles(path, complete_from))
    return model


def model_files(model: Any) -> ModelFiles | None:
    """Return what a MODEL was loaded from, by our loader or a stock one, if it still exists."""
    attached = model.get_attachment(_KEY)
    if isinstance(attached, ModelFiles):
        return attached if attached.path.exists() else None
    init = getattr(model, "cached_patcher_init", None)
    candidate = init[1][0] if init and len(init) > 1 and init[1] else None
    if not isinstance(candidate, (str, Path)):
        return None
    path = Path(candidate)
    return ModelFiles(path) if path.exists() else None


def _is_comfys_own(path: Path) -> bool:
    """Whether ComfyUI's loader reads a file as it is.

    A file that is damaged is named here, with what is wrong, which the loader would not do.
    """
    if not path.is_file() or path.suffix != ".safetensors":
        return False
    with open_tensors(path) as source:
        prefix = find_prefix(source.tensors)
        names = [name.removeprefix(prefix) for name in source.tensors]
        return find_naming(names) is None and with_2511_marker(source) is source


def _as_stored(source: TensorSource, name: str) -> torch.Tensor:
    """Load a tensor in the dtype it is kept in: decoded weights come wider, twice the size."""
    return cast_plain(source.load(name), source.info(name).dtype)


def _reload(path: Path, complete_from: Path | None = None, disable_dynamic: bool = False) -> Any:
    return load_source_model(path, complete_from)
