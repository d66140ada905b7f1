"""Find the diffusion model in a folder: its files, a part of a diffusers pipeline, or a GGUF."""

from __future__ import annotations

from pathlib import Path

from ..errors import SourceError

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
    files = sorted(folder.glob("*.gguf"))
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
