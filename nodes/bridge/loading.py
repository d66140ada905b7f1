"""Loading a model file as a MODEL, and finding the files of a MODEL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sd

from ...quant.errors import SourceError
from ...quant.planning import require_whole, take_inventory
from ...quant.sources import open_source
from ...quant.sources.loadable import loadable_tensors

_KEY = "nvfp4_foundry"


@dataclass(frozen=True)
class ModelFiles:
    """The files that a MODEL was loaded from."""

    path: Path
    complete_from: Path | None = None
    layout: str = ""


def load_source_model(path: Path, complete_from: Path | None = None, layout: str = "") -> Any:
    """Load a model file, index or folder as a MODEL through ComfyUI's own loader.

    ``complete_from`` is a file that supplies missing tensors, ``layout`` that of NVFP4 weights
    without markers (see `open_source`).

    Raises:
        SourceError: the file is unreadable or incomplete, or ComfyUI does not recognise the model.
    """
    # An error here names the file and the problem; one from the loader would not.
    with open_source(path, complete_from, layout=layout) as source:
        require_whole(take_inventory(source))
        by_itself = path.is_file() and path.suffix == ".safetensors" and source.comfyui_reads
        state_dict = {} if by_itself else loadable_tensors(source)
        metadata = dict(source.metadata)
    if by_itself:
        model = comfy.sd.load_diffusion_model(str(path))
    else:
        model = comfy.sd.load_diffusion_model_state_dict(state_dict, metadata=metadata)
        if model is None:
            raise SourceError(f"ComfyUI does not recognise the model in {path}")
        # The stock loader sets this too: ComfyUI uses it to load the model again.
        model.cached_patcher_init = (_reload, (path, complete_from, layout))
    model.set_attachments(_KEY, ModelFiles(path, complete_from, layout))
    return model


def model_files(model: Any) -> ModelFiles | None:
    """Return the files that our or a stock loader read a MODEL from, if they still exist."""
    attached = model.get_attachment(_KEY)
    if isinstance(attached, ModelFiles):
        return attached if attached.path.exists() else None
    init = getattr(model, "cached_patcher_init", None)
    candidate = init[1][0] if init and len(init) > 1 and init[1] else None
    if not isinstance(candidate, (str, Path)):
        return None
    path = Path(candidate)
    return ModelFiles(path) if path.exists() else None


def _reload(
    path: Path,
    complete_from: Path | None = None,
    layout: str = "",
    disable_dynamic: bool = False,
) -> Any:
    return load_source_model(path, complete_from, layout)
