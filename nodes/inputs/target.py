"""The inputs for where to save a checkpoint, shared by all nodes that write one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ...quant.checkpoint import check_target
from ...quant.errors import Remedy
from ...quant.files.write import make_folder
from ..files import folders
from ..files.names import free_name, is_file_name
from ..files.written import WRITTEN
from ..prompts.validation import constant_inputs
from ..reports.errors import refused

_NUMBER, _STOP, _OVERWRITE = "add a number", "stop", "overwrite"
#: What is added to the name of the source if the user gives no name.
SUFFIX = "_nvfp4"


def target_inputs() -> list[io.Input]:
    """Return the inputs for where to save a checkpoint."""
    return [
        io.String.Input(
            "file_name",
            default="",
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
    folder, source = inputs.get("folder"), inputs.get("model_file", "")
    if file_name is None or not isinstance(folder, str) or not (file_name.strip() or source):
        return True
    try:
        path = folders.target_path(folder, _name(file_name, str(source)))
    except (ValueError, FileNotFoundError) as error:
        return refused(str(error))
    if path.exists() and inputs.get("if_exists") == _STOP:
        return refused(
            f"{path} already exists; choose another name or allow overwriting",
            Remedy("Add a number to the name", "if_exists", _NUMBER),
        )
    return True


@dataclass(frozen=True)
class Target:
    """Where a node saves a checkpoint: its class and the values of `target_inputs`.

    ``model_file`` is the source, for nodes that read a file.
    """

    node: str
    file_name: str | None
    folder: str | None
    if_exists: str | None
    model_file: str = ""

    @classmethod
    def of(cls, node: str, inputs: Mapping[str, Any], model_file: str = "") -> Target:
        """Return the target for the inputs of a node; linked ones are missing."""
        get = inputs.get
        return cls(node, get("file_name"), get("folder"), get("if_exists"), model_file)

    def resolve(self, data_bytes: int, source: str) -> tuple[Path, bool]:
        """Check the disk space; return the path to write and whether it may replace a file.

        Without a name, the file gets the name of its ``source`` with `SUFFIX`.
        """
        path = folders.target_path(self.folder or "", _name(self.file_name or "", source))
        make_folder(path.parent)
        if self.if_exists == _NUMBER:
            path = free_name(path)
        overwrite = self.if_exists == _OVERWRITE
        check_target(path, data_bytes, overwrite=overwrite)
        return path, overwrite

    def written(self, path: Path) -> None:
        """Remember the file that was written, for `times_lost`."""
        WRITTEN.add(astuple(self), path)

    def holds(self, path: Path) -> bool:
        """Whether this file was the last one written here, and is still as it was."""
        return WRITTEN.unchanged(astuple(self)) == path

    def times_lost(self) -> int:
        """Return how often the written file was deleted or replaced, for ``fingerprint_inputs``."""
        return WRITTEN.times_lost(astuple(self))


def _name(file_name: str, source: str) -> str:
    """Return the name that the user gave, or one for what is made from a source.

    A source is a file, an index, a folder, or a MODEL in memory.
    """
    if file_name.strip():
        return file_name
    name = source.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    for suffix in (".safetensors.index.json", ".safetensors", ".gguf", SUFFIX):
        name = name.removesuffix(suffix)
    return f"{name if is_file_name(name) else 'model'}{SUFFIX}"
