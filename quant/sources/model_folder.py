"""Find the diffusion model in a folder: its files, a part of a diffusers pipeline, or a GGUF."""

from __future__ import annotations

from pathlib import Path

from ..errors import SourceError
from .numbered_files import sets_of

# Folders of a pipeline that hold a diffusion model.
_PARTS = ("transformer", "transformer_2", "unet")


def model_in_folder(folder: Path) -> Path:
    """Return the path to open for a folder: itself, a folder of a pipeline, or a GGUF.

    Raises:
        SourceError: the folder holds several models.
    """
    if any(folder.glob("*.safetensors*")):
        return folder
    parts = [folder / name for name in _PARTS if any(folder.glob(f"{name}/*.safetensors"))]
    files = _without_later_parts(sorted(folder.glob("*.gguf")))
    found = [*parts, *files]
    if len(found) == 1:
        return found[0]
    if len(parts) > 1:
        raise SourceError(
            f"{folder} is a pipeline with {len(parts)} diffusion models: give "
            f"{' or '.join(str(part) for part in parts)}, and quantize each one separately (in WAN "
            "2.2, transformer is the high-noise expert and transformer_2 the low-noise expert)"
        )
    if found:
        raise SourceError(
            f"{folder} holds several models: give one of {', '.join(path.name for path in found)}"
        )
    return folder


def _without_later_parts(files: list[Path]) -> list[Path]:
    """Return files without those that another one opens as well, because they are of one model."""
    later = {part.path for parts in sets_of(files).values() for part in parts[1:]}
    return [file for file in files if file not in later]
