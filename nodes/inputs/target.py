"""The inputs for where to save a checkpoint, shared by all nodes that write one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ...quant.checkpoint import check_target
from ...quant.errors import Remedy
from ..files import folders
from ..files.names import free_name, is_file_name
from ..prompts.validation import constant_inputs
from ..reports.errors import refused

_NUMBER, _STOP, _OVERWRITE = "add a number", "stop", "overwrite"
#: What is added to the name of the source if the user gives no name.
SUFFIX = "_nvfp4"


def target_inputs(*, default: str = "") -> list[io.Input]:
    """Return the inputs for where to save a checkpoint."""
    return [
        io.String.Input(
            "file_name",
            default=default,
            tooltip="The name of the checkpoint, or subfolder/name. .safetensors is added. Leave "
            f"it empty for the name of the source with {SUFFIX}.",
        ),
        io.Combo.Input(
            "folder",
            options=folders.target_folders(),
            default="diffusion_models",
            tooltip="Where to save the checkpoint. Load Diffusion Model finds it in "
            "diffusion_models, Load CLIP in text_encoders, and Load Checkpoint in checkpoints (for "
            "whole checkpoints). output is ComfyUI's output folder.",
        ),
        io.Combo.Input(
            "if_exists",
            options=[_NUMBER, _STOP, _OVERWRITE],
            default=_NUMBER,
            tooltip="What to do if a file of this name exists.",
        ),
    ]


def card_input() -> io.Input:
    """Return the switch for a model card beside the checkpoint."""
    return io.Boolean.Input(
        "model_card",
        default=False,
        optional=True,
        tooltip="Also write a model card beside the checkpoint, to publish with it: what it was "
        "made from and how, sizes, errors, a picture of the layers, and how to load it.",
    )


def why_not_target(file_name: str | None) -> bool | str:
    """Return True or why the target of the node is invalid, for ``validate_inputs``."""
    inputs = constant_inputs()
    folder = inputs.get("folder")
    if not file_name or not isinstance(folder, str):
        return True
    try:
        path = folders.target_path(folder, file_name)
    except (ValueError, FileNotFoundError) as error:
        return refused(str(error))
    if path.exists() and inputs.get("if_exists") == _STOP:
        return refused(
            f"{path} already exists; choose another name or allow overwriting",
            Remedy("Add a number to the name", "if_exists", _NUMBER),
        )
    return True


def resolve_target(
    file_name: str, folder: str, if_exists: str, data_bytes: int, source: str
) -> tuple[Path, bool]:
    """Check the disk space; return the path to write and whether it may replace a file.

    Without a name, the file gets the name of its ``source`` with `SUFFIX`.
    """
    path = folders.target_path(folder, file_name.strip() or f"{_stem(source)}{SUFFIX}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if if_exists == _NUMBER:
        path = free_name(path)
    overwrite = if_exists == _OVERWRITE
    check_target(path, data_bytes, overwrite=overwrite)
    return path, overwrite


def _stem(source: str) -> str:
    """Return a name for what was made from a file, an index, a folder or a MODEL in memory."""
    name = source.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    for suffix in (".safetensors.index.json", ".safetensors", ".gguf"):
        name = name.removesuffix(suffix)
    return name if is_file_name(name) else "model"


def target_key(node: str, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key of a node's target in `files.written`: the node, and where it saves."""
    return (
        node,
        *(inputs.get(name) for name in ("file_name", "folder", "if_exists", "model_file")),
    )
