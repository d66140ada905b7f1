"""The input for how static input scales are derived, shared by all nodes that write them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ...quant.calibration.input_scale import DEFAULT_HEADROOM, InputScalePolicy
from ...quant.errors import CalibrationError
from ..files import folders
from ..files.artefacts import INPUT_SCALES

_DEFAULT_MULTIPLIER = 2.0
AMAX, PERCENTILE, DYNAMIC, FIXED = "amax", "p99.9 of calls", "dynamic", "fixed"
FROM_FILE = "values from a file"
_KINDS = (AMAX, PERCENTILE, DYNAMIC, FIXED, FROM_FILE)
_EXPORTED, _INPUT = "exported/", "input/"


def input_scale_options(kinds: Collection[str] = _KINDS) -> list[io.DynamicCombo.Option]:
    """Return the choices of an ``input_scale`` input, each with its own widgets."""
    return [io.DynamicCombo.Option(kind, _widgets(kind)) for kind in _KINDS if kind in kinds]


def chosen_policy(choice: dict[str, Any] | None) -> InputScalePolicy:
    """Return the policy of a choice.

    Raises:
        CalibrationError: the choice is unknown.
        FileNotFoundError: its file does not exist.
    """
    kind = choice["input_scale"] if choice else None  # ComfyUI turns an unknown choice into None
    if choice is None or kind not in _KINDS:
        raise CalibrationError(
            "this workflow uses an unknown input_scale option; choose another option"
        )
    if kind == AMAX:
        return InputScalePolicy("amax", choice.get("headroom", DEFAULT_HEADROOM))
    if kind == PERCENTILE:
        return InputScalePolicy("percentile", choice.get("multiplier", _DEFAULT_MULTIPLIER))
    if kind == FIXED:
        return InputScalePolicy("fixed", input_scale=choice["value"])
    if kind == FROM_FILE:
        headroom = choice.get("headroom", DEFAULT_HEADROOM)
        return InputScalePolicy("file", headroom, path=_path(choice.get("file")))
    return InputScalePolicy("dynamic")


def why_not(inputs: Mapping[str, Any]) -> str | None:
    """Return why a choice is invalid, or None if it is valid, for ``validate_inputs``.

    ``inputs`` are the constant inputs of the node, from ``constant_inputs``.
    """
    try:
        if inputs.get("input_scale") == FROM_FILE:
            _path(inputs.get("input_scale.file"))
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return None


def modified(choice: Any) -> float:
    """Return when the file of a choice last changed, for ``fingerprint_inputs``; 0 if none."""
    name = _file_of(choice)
    return _path(name).stat().st_mtime if name else 0.0


def _file_of(choice: Any) -> str | None:
    # ComfyUI passes dynamic inputs as a name or a dict
    is_file = isinstance(choice, dict) and choice.get("input_scale") == FROM_FILE
    return choice.get("file") if is_file else None


def _path(name: str | None) -> Path:
    if not name:
        raise FileNotFoundError("choose a file of input scales")
    if name.startswith(_INPUT):
        return folders.input_path(name.removeprefix(_INPUT))
    if name.startswith(_EXPORTED):
        path = INPUT_SCALES.path(name.removeprefix(_EXPORTED))
        if path.is_file():
            return path
        raise FileNotFoundError(f"{path} no longer exists; refresh the list")
    return folders.source_path(name)


def _files() -> list[str]:
    """Return the JSON files, then the checkpoints that may hold scales."""
    return [
        *(_EXPORTED + name for name in INPUT_SCALES.names()),
        *(_INPUT + name for name in folders.json_files()),
        *(name for name in folders.source_files() if name.endswith(".safetensors")),
    ]


def _widgets(kind: str) -> list[io.Input]:
    if kind == AMAX:
        return [_factor("headroom", DEFAULT_HEADROOM, 0.5, _HEADROOM)]
    if kind == PERCENTILE:
        return [_factor("multiplier", _DEFAULT_MULTIPLIER, 0.1, _MULTIPLIER)]
    if kind == FIXED:
        return [
            io.Float.Input(
                "value",
                default=0.01,
                min=1e-6,
                max=1e6,
                step=1e-4,
                round=False,
                tooltip="The input_scale of every layer. NVFP4 represents activations up to 2688 "
                "times this value.",
            )
        ]
    if kind == FROM_FILE:
        chosen = io.Combo.Input("file", options=_files(), tooltip=_FILE)
        return [chosen, _factor("headroom", DEFAULT_HEADROOM, 0.5, _FILE_HEADROOM)]
    return []


def _factor(name: str, default: float, step: float, tooltip: str) -> io.Input:
    return io.Float.Input(name, default=default, min=1.0, max=1024.0, step=step, tooltip=tooltip)


_HEADROOM = (
    "The multiplier for the largest observed activation. 1 to 64 are equally accurate. A larger "
    "value leaves room for prompts that the calibration did not see."
)
_MULTIPLIER = (
    "The multiplier for the 99.9th percentile over calls. Below 1.5, new prompts may clip."
)
_FILE = (
    "The file to take the scales from: a JSON file in output/nvfp4_foundry/input_scales or in "
    "ComfyUI's input folder, as other converters write it, or a quantized checkpoint with scales."
)
_FILE_HEADROOM = (
    "The multiplier for measured ranges (a summary). Finished scales are used unchanged."
)
