"""Model files and places to save in ComfyUI's own folders."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import folder_paths

from ...quant.sources.numbered_files import Part, part_of, parts_beside, sets_of
from ...quant.sources.single_file import ENDINGS
from .names import normal, quoted, why_not_path

MODEL_FOLDERS = ("diffusion_models", "checkpoints")
TEXT_ENCODERS = "text_encoders"
OUTPUT = "output"
NOTHING = "nothing"
_INDEX = ".safetensors.index.json"
_LOG = re.compile(r"\.(log|txt|tsv)(\.(gz|xz|bz2))?$", re.IGNORECASE)


def model_files() -> list[str]:
    """Return every diffusion model that the user can choose, as ``folder/relative/name``.

    A sharded model is listed once: by its index or, without an index, by its folder and ``/``.
    """
    return sorted({name for folder in MODEL_FOLDERS for name in _files_of(folder)})


def source_files() -> list[str]:
    """Return every file that can be quantized: diffusion models and text encoders."""
    return [*model_files(), *sorted(set(_files_of(TEXT_ENCODERS)))]


def gguf_files() -> list[str]:
    """Return the GGUF files among the sources."""
    return [name for name in source_files() if name.endswith(".gguf")]


def quantized_files() -> list[str]:
    """Return the sources that may be quantized checkpoints, which excludes GGUF files."""
    return [name for name in source_files() if not name.endswith(".gguf")]


def completing_files() -> list[str]:
    """Return the choices for a file that supplies missing tensors: nothing, or any source."""
    return [NOTHING, *source_files()]


def completing_path(name: str | None) -> Path | None:
    """Return the path for a name from `completing_files`, or None for nothing.

    Raises:
        FileNotFoundError: as `source_path`.
    """
    return None if name in (None, "", NOTHING) else source_path(name)


def source_path(name: str) -> Path:
    """Return the path for a name from `source_files`.

    Raises:
        FileNotFoundError: the file is not in a model folder.
    """
    folder, _, relative = name.partition("/")
    is_plain = not {".", ".."} & set(relative.replace("\\", "/").split("/"))
    if is_plain and folder in (*MODEL_FOLDERS, TEXT_ENCODERS):
        for root in _roots(folder):
            with contextlib.suppress(OSError, ValueError):  # a name that cannot be one
                path = (root / relative).resolve()
                if path.exists() and path.is_relative_to(root):
                    return path
    raise FileNotFoundError(f"{quoted(name)} is not in ComfyUI's model folders; refresh the list")


def modified(*names: str | None) -> list[float]:
    """Return when the files of sources last changed, for ``fingerprint_inputs``.

    For an index or a folder, this includes all shards.

    Raises:
        FileNotFoundError: as `source_path`.
    """
    paths = [path for name in names if (path := completing_path(name))]
    return [file.stat().st_mtime for path in paths for file in _parts(path)]


def _parts(path: Path) -> list[Path]:
    """Return the files that a source is read from."""
    part = part_of(path)
    if part is not None:
        return [other.path for other in parts_beside(part)]
    if path.is_file() and not path.name.endswith(_INDEX):
        return [path]
    folder = path if path.is_dir() else path.parent
    return [path, *sorted(folder.glob("*.safetensors"))]


def _files_of(folder: str) -> Iterator[str]:
    for root in _roots(folder):
        for directory, _, names in os.walk(root, followlinks=True):
            prefix = Path(folder, Path(directory).relative_to(root)).as_posix()
            yield from (f"{prefix}/{name}" for name in _models_among(names))


def _models_among(names: Iterable[str]) -> Iterator[str]:
    """Yield what can be chosen in a folder. A model in parts is one choice."""
    files = [name for name in names if name.lower().endswith((*ENDINGS, _INDEX))]
    yield from (name for name in files if name.endswith(_INDEX))
    sets = list(sets_of(map(Path, files)).values())
    is_indexed = any(name.endswith(_INDEX) for name in files)
    shards = [parts for parts in sets if parts[0].path.suffix == ".safetensors"]
    if shards and not is_indexed:
        # the folder stands for its only model
        yield from ("",) if len(shards) == 1 else (_first_of(parts) for parts in shards)
    yield from (_first_of(parts) for parts in sets if parts not in shards)
    numbered = {part.path.name for parts in sets for part in parts}
    yield from (n for n in files if n not in numbered and not n.endswith(_INDEX))


def _first_of(parts: Iterable[Part]) -> str:
    return min(parts, key=lambda part: part.number).path.name


def _roots(folder: str) -> list[Path]:
    return [Path(p).resolve() for p in folder_paths.get_folder_paths(folder) if Path(p).is_dir()]


def missing_source(name: str | None) -> str | None:
    """Return why a source is missing, for ``validate_inputs``; None if it exists or is linked."""
    if name in (None, NOTHING):
        return None
    try:
        source_path(name)
    except FileNotFoundError as error:
        return str(error)
    return None


def target_folders() -> list[str]:
    """Return the folders that a checkpoint can be saved to."""
    return ["diffusion_models", "checkpoints", TEXT_ENCODERS, OUTPUT]


def target_path(folder: str, name: str) -> Path:
    """Return the path for a checkpoint of this name; ``.safetensors`` is added if missing.

    The name may contain subfolders but must stay inside the folder.

    Raises:
        ValueError: the name is empty or points outside the folder.
        FileNotFoundError: ComfyUI has no such folder.
    """
    cleaned = normal(name).replace("\\", "/").removesuffix(".safetensors")
    if cleaned.startswith("/") or {".", ".."} & set(cleaned.split("/")):
        raise ValueError(f"{quoted(name)} points outside the {folder} folder; use a plain name")
    problem = why_not_path(cleaned)
    if problem:
        raise ValueError(
            f"{quoted(name)} is not a valid file name for a checkpoint: {problem}; use letters and "
            "digits"
        )
    if folder not in target_folders():
        raise ValueError(
            f"folder must be one of {', '.join(target_folders())}, not {quoted(folder)}"
        )
    if folder == OUTPUT:
        roots = [Path(folder_paths.get_output_directory()).resolve()]
    else:
        roots = _roots(folder)
    if not roots:
        raise FileNotFoundError(
            f"ComfyUI's {folder} folder does not exist; create it or save to {OUTPUT}"
        )
    path = (roots[0] / f"{cleaned}.safetensors").resolve()
    if not path.is_relative_to(roots[0]):
        raise ValueError(f"{quoted(name)} points outside the {folder} folder; use a plain name")
    return path


def prompt_files() -> list[str]:
    """Return the text files in ComfyUI's input folder."""
    root = Path(folder_paths.get_input_directory())
    return sorted(p.name for p in root.glob("*.txt"))


def json_files() -> list[str]:
    """Return the JSON files in ComfyUI's input folder."""
    root = Path(folder_paths.get_input_directory())
    return sorted(p.name for p in root.glob("*.json"))


def log_files() -> list[str]:
    """Return the files in ComfyUI's input folder that may be activation logs."""
    root = Path(folder_paths.get_input_directory())
    return sorted(p.name for p in root.glob("*") if _LOG.search(p.name) and p.is_file())


def input_path(name: str) -> Path:
    """Return the path of a file in ComfyUI's input folder.

    Raises:
        FileNotFoundError: the file is not directly in the input folder.
    """
    path = Path(folder_paths.get_input_directory(), name)
    with contextlib.suppress(OSError, ValueError):  # a name that cannot be one
        if path.name == name and path.is_file():
            return path
    raise FileNotFoundError(f"{quoted(name)} is not in ComfyUI's input folder; refresh the list")
