"""The inputs for where to save a checkpoint, shared by all nodes that write one."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ...quant.checkpoint import check_target
from ..files import folders

_NUMBER, _STOP, _OVERWRITE = "add a number", "stop", "overwrite"


def target_inputs() -> list[io.Input]:
    """Return the inputs for where to save a checkpoint."""
    return [
        io.String.Input(
            "file_name",
            default="model_nvfp4",
            tooltip="The name of the checkpoint, or subfolder/name. .safetensors is added.",
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


def validate_target(file_name: str | None, folder: str | None, if_exists: str | None) -> bool | str:
    """Return True or why the target is invalid, for validation; linked inputs are None."""
    if if_exists not in (None, _NUMBER, _STOP, _OVERWRITE):
        return f"if_exists must be one of {_NUMBER}, {_STOP}, {_OVERWRITE}, not {if_exists}"
    if file_name is None or folder is None:
        return True
    try:
        path = folders.target_path(folder, file_name)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    if path.exists() and if_exists == _STOP:
        return f"{path} already exists; choose another name or allow overwriting"
    return True


def resolve_target(
    file_name: str, folder: str, if_exists: str, data_bytes: int
) -> tuple[Path, bool]:
    """Check the disk space; return the path to write and whether it may replace a file."""
    path = folders.target_path(folder, file_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if if_exists == _NUMBER:
        path = folders.free_name(path)
    overwrite = if_exists == _OVERWRITE
    check_target(path, data_bytes, overwrite=overwrite)
    return path, overwrite
