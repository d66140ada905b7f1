"""Calibration files: one safetensors file whose header holds everything that is not a tensor.

Tensors are named ``<input_id>.<field>``, once per distinct input. The header's metadata has one
key, `METADATA_KEY`, whose value is JSON with a ``version``. With more keys the same calibration
would not always give the same bytes. Second moments may take gigabytes, so they have their own
files in a folder beside it (`moments_folder`).
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import CalibrationError, FoundryError, SourceError
from ..files.json_file import parse_json
from ..files.stored_data import StoredData, checked
from ..files.target import require_ordinary
from ..files.write import written_whole
from ..fingerprint import ModelFingerprint
from ..sources.safetensors_file import SafetensorsFile
from ..sources.write_tensors import write_tensors
from .moments import InputMoments, MomentPart
from .records import LayerStatistics, RunRecord
from .statistics import CalibrationStatistics
from .stored_header import StoredCalibration, StoredFingerprint
from .unlisted import remove_unlisted, unmark

METADATA_KEY = "nvfp4_foundry.calibration"
FORMAT_VERSION = 2
# Of calibrations, and of the runs of one that were interrupted, which the nodes keep beside it.
_ENDINGS = (".safetensors", ".interrupted")

# Field -> dtype and shape: N records, K channels, R sampled rows.
_ARRAYS: dict[str, tuple[torch.dtype, str]] = {
    "sigma": (torch.float32, "N"),
    "branch": (torch.int8, "N"),
    "call_amax": (torch.float32, "N"),
    "run": (torch.int32, "N"),
    "sum_squares": (torch.float64, "K"),
    "channel_amax": (torch.float32, "K"),
    "priorities": (torch.float64, "R"),
    "row_run": (torch.int32, "R"),
}
_SINCE_VERSION_2 = ("row_run",)


def moments_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder of the second moments that belong to a calibration file."""
    target = Path(path)
    return target.with_name(f"{target.stem}.moments")


def delete_moments(path: str | os.PathLike[str]) -> None:
    """Delete the second moments of a deleted calibration file.

    Keeps those that another calibration file in the folder lists: it may be the same file, renamed.
    """
    folder = moments_folder(path)
    files = list(folder.glob("*"))
    listed: set[str] = set()
    if files:
        listed = _all_listed(Path(path).parent)
    for file in files:
        if file.stem not in listed:
            with suppress(OSError):
                file.unlink()
    with suppress(OSError):  # not empty, or not there
        folder.rmdir()


def _all_listed(folder: Path) -> set[str]:
    """Return the ids of the parts that the calibrations of a folder list, interrupted ones too."""
    files = (path for ending in _ENDINGS for path in folder.glob(f"*{ending}"))
    return set().union(*map(_listed_moments, files))


def _listed_moments(path: Path) -> set[str]:
    """Return the ids of the parts that a file lists: none if it is not a calibration file."""
    try:
        with SafetensorsFile(path) as file:
            header = checked(StoredCalibration, parse_json(_header_of(path, file), endless=True))
    except (FoundryError, OSError, ValueError):
        return set()
    return {part.id for entry in header.inputs.values() for part in entry.moments}


def save_statistics(statistics: CalibrationStatistics, path: str | os.PathLike[str]) -> None:
    """Write a calibration file.

    Second moments are written first, to `moments_folder`. Those already in files elsewhere are
    linked, or copied where links are not possible. Those that killed processes of this machine left
    in the folder, and that no calibration there lists, are deleted.

    Raises `FileError` if a file cannot be written.
    """
    target = Path(path)
    for layer in statistics.inputs.values():
        for part in layer.moments.parts if layer.moments else ():
            part.stored_in(moments_folder(target))
    tensors: dict[str, torch.Tensor] = {}
    for input_id, layer in statistics.inputs.items():
        tensors[f"{input_id}.rows"] = layer.rows.contiguous()
        for name in _ARRAYS:
            tensors[f"{input_id}.{name}"] = torch.from_numpy(
                np.ascontiguousarray(getattr(layer, name))
            )
    metadata = {METADATA_KEY: json.dumps(_header(statistics))}
    with written_whole(target) as file:
        write_tensors(file, _widest_first(tensors), metadata)
    layers = statistics.inputs.values()
    unmark(moments_folder(target), {p.id for la in layers if la.moments for p in la.moments.parts})
    for folder in target.parent.glob("*.moments"):
        remove_unlisted(folder, lambda: _all_listed(target.parent))


def _widest_first(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors in an order in which each begins at a multiple of its element size."""
    return dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))


def load_statistics(path: str | os.PathLike[str]) -> CalibrationStatistics:
    """Read a calibration file.

    Raises `CalibrationError`, naming the file and the problem: it is missing, truncated, not a
    calibration file, written by a newer version, or inconsistent.
    """
    source = Path(path)
    try:
        require_ordinary(source)
        source.open("rb").close()  # which says why it cannot be read
        # No memory map: the file may be replaced while this calibration is in use.
        with SafetensorsFile(source) as file:
            text = _header_of(source, file)
            tensors = {name: file.load(name) for name in file.tensors}
    except OSError as error:
        raise CalibrationError(f"{source}: cannot read the calibration: {error}") from error
    except SourceError as error:
        why = str(error).removeprefix(f"{source} ").removesuffix("; fetch it again")
        raise CalibrationError(
            f"{source} is damaged or truncated, or is no calibration file: it {why}. Calibrate "
            "again, or use another calibration file"
        ) from error
    try:
        header = parse_json(text, endless=True)
        _check_version(source, header)
        stored = checked(StoredCalibration, header)
        return _rebuild(stored.model_dump(), tensors, moments_folder(source))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CalibrationError(
            f"{source}: the calibration is damaged ({error}); calibrate again"
        ) from error


def load_fingerprint(path: str | os.PathLike[str]) -> ModelFingerprint | None:
    """Return of which model a calibration file is, from its header; None if it cannot be read."""
    try:
        with SafetensorsFile(Path(path)) as file:
            header = parse_json(_header_of(Path(path), file), endless=True)
        return ModelFingerprint.from_json(checked(_OfModel, header).fingerprint.model_dump())
    except (FoundryError, OSError, ValueError):
        return None


def _header(statistics: CalibrationStatistics) -> dict[str, Any]:
    names: dict[str, list[str]] = {}
    for name, layer in statistics.layers.items():
        names.setdefault(layer.input_id, []).append(name)
    return {
        "version": FORMAT_VERSION,
        "fingerprint": statistics.fingerprint.to_json(),
        "runs": [run.to_json() for run in statistics.runs],
        "rows_per_layer": statistics.rows_per_layer,
        "tool_versions": list(statistics.tool_versions),
        "changed_layers": list(statistics.changed_layers),
        "inputs": {
            input_id: {
                "layers": names[input_id],
                "in_features": layer.in_features,
                "calls": layer.calls,
                "tokens": layer.tokens,
                "tokens_used": layer.tokens_used,
                "row_limit": layer.row_limit if math.isfinite(layer.row_limit) else None,
                "moments": [
                    {
                        "id": part.id,
                        "run": part.run,
                        "tokens": part.tokens,
                        "repeats": part.repeats,
                    }
                    for part in (layer.moments.parts if layer.moments else ())
                ],
            }
            for input_id, layer in statistics.inputs.items()
        },
    }


class _OfModel(StoredData):
    """The part of the header that says of which model a calibration is."""

    fingerprint: StoredFingerprint


def _header_of(path: Path, file: SafetensorsFile) -> str:
    """Return the text that describes a calibration.

    Raises:
        CalibrationError: the file is not a calibration file.
    """
    if METADATA_KEY not in file.metadata:
        raise CalibrationError(
            f"{path} is not a calibration file; choose a file that Calibration Result saved"
        )
    return file.metadata[METADATA_KEY]


def _check_version(source: Path, header: Any) -> None:
    written = header.get("version") if isinstance(header, dict) else None
    if isinstance(written, int) and written > FORMAT_VERSION:
        raise CalibrationError(
            f"{source} was written by a newer version of NVFP4 Foundry (file format {written}; "
            f"this version reads up to {FORMAT_VERSION}). Update the node pack"
        )


def _rebuild(
    header: dict[str, Any], tensors: dict[str, torch.Tensor], folder: Path
) -> CalibrationStatistics:
    runs = tuple(RunRecord.from_json(run) for run in header["runs"])
    layers: dict[str, LayerStatistics] = {}
    for input_id, entry in header["inputs"].items():
        layer = _rebuild_layer(input_id, entry, tensors, len(runs), folder)
        layers.update(dict.fromkeys(entry["layers"], layer))
    return CalibrationStatistics(
        layers={name: layers[name] for name in sorted(layers)},
        fingerprint=ModelFingerprint.from_json(header["fingerprint"]),
        runs=runs,
        rows_per_layer=int(header["rows_per_layer"]),
        tool_versions=tuple(header["tool_versions"]),
        changed_layers=tuple(header["changed_layers"]),
    )


def _rebuild_layer(
    input_id: str, entry: dict[str, Any], tensors: dict[str, torch.Tensor], runs: int, folder: Path
) -> LayerStatistics:
    rows = tensors[f"{input_id}.rows"]
    sizes = {
        "N": tensors[f"{input_id}.call_amax"].numel(),
        "K": int(entry["in_features"]),
        "R": rows.shape[0],
    }
    if tuple(rows.shape) != (sizes["R"], sizes["K"]) or not rows.is_floating_point():
        raise ValueError(f"{input_id}.rows is {tuple(rows.shape)} {rows.dtype}")
    arrays: dict[str, np.ndarray] = {}
    for name, (dtype, size) in _ARRAYS.items():
        tensor = tensors.get(f"{input_id}.{name}")
        if tensor is None and name in _SINCE_VERSION_2:
            tensor = torch.full((sizes[size],), -1, dtype=dtype)
        if tensor is None:
            raise KeyError(f"{input_id}.{name}")
        if tensor.dtype != dtype or tuple(tensor.shape) != (sizes[size],):
            raise ValueError(f"{input_id}.{name} is {tuple(tensor.shape)} {tensor.dtype}")
        arrays[name] = tensor.numpy()
    if arrays["run"].size and not 0 <= arrays["run"].min() <= arrays["run"].max() < runs:
        raise ValueError(f"{input_id} refers to a run that the file does not have")
    if not (arrays["row_run"] >= -1).all() or not (arrays["row_run"] < runs).all():
        raise ValueError(f"{input_id} has rows from a run that the file does not have")
    limit = entry["row_limit"]
    return LayerStatistics(
        input_id=input_id,
        in_features=sizes["K"],
        calls=int(entry["calls"]),
        tokens=int(entry["tokens"]),
        tokens_used=int(entry["tokens_used"]),
        rows=rows,
        row_limit=math.inf if limit is None else float(limit),
        moments=_find_moments(entry.get("moments", ()), sizes["K"], folder),
        **arrays,
    )


def _find_moments(
    entries: Iterable[Mapping[str, Any]], in_features: int, folder: Path
) -> InputMoments | None:
    """Return the parts whose files exist, None if there are none.

    If the calibration file was renamed, its parts are in the folder of its earlier name.
    """
    parts = []
    for entry in entries:
        name = f"{uuid.UUID(hex=entry['id']).hex}.safetensors"
        path = folder / name
        if not path.is_file():
            path = next(folder.parent.glob(f"*{folder.suffix}/{name}"), path)
        if path.is_file():
            tokens, repeats = int(entry["tokens"]), bool(entry["repeats"])
            parts.append(
                MomentPart(path.stem, str(entry["run"]), tokens, in_features, repeats, path=path)
            )
    return InputMoments(tuple(parts)) if parts else None
