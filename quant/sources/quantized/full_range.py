"""Refuse 8-bit floats without scales whose values show that they had some.

A cast of a weight keeps its size: the largest value of a layer is hardly above 10, and far from
448, the largest E4M3 number. Tools that scale a weight use the whole range instead. Without the
scale, such weights are up to thousands of times too large.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from ...errors import SourceError
from ..base import TensorSource
from .parts import FLOAT8
from .sampled_codes import FEW, code_max, sampled_size

# How many layers to look at, and which parts of the range are too large for the largest value and
# for the root mean square of a weight. The sample of a large layer may miss its largest value, but
# is right about the mean, which outliers hardly change.
_LAYERS, _AMAX, _RMS = 24, 1 / 4, 1 / 224
# A single layer is enough if its mean square is that of a scaled weight beyond doubt. The tables of
# words of some text encoders are large by themselves.
_SURE_RMS = 1 / 40
_TABLE = re.compile(r"(^|\.)(shared|\w*embed\w*)\.weight$")


def require_plain(source: TensorSource, plain: Collection[str]) -> None:
    """Refuse a file whose unscaled 8-bit floats, ``plain``, fill the range of their format.

    Raises:
        SourceError: most of them do, or one does beyond doubt; the message names the likely file
            with the scales.
    """
    matrices = [
        name for name in plain
        if len(source.info(name).shape) > 1 and source.info(name).dtype in FLOAT8
    ]  # fmt: skip
    chosen = matrices[:: max(1, len(matrices) // _LAYERS)][:_LAYERS]
    full = [name for name in chosen if _fills_range(source, name)]
    if 2 * len(full) <= len(chosen):
        full = [name for name in matrices if _is_surely_scaled(source, name)][:1]
    if not full:
        return
    raise SourceError(
        f"{source.description}: {_names(full)} 8-bit floats that fill the whole range of "
        "their format, so they were scaled, but the file holds no scales for them; read as they "
        f"are, the weights would be far too large. {_way_out(source)}"
    )


def _fills_range(source: TensorSource, name: str) -> bool:
    size, largest = sampled_size(source, name), code_max(source.info(name).dtype)
    return size.amax >= _AMAX * largest or size.rms >= _RMS * largest


def _is_surely_scaled(source: TensorSource, name: str) -> bool:
    if _TABLE.search(name):
        return False
    return sampled_size(source, name, FEW).rms >= _SURE_RMS * code_max(source.info(name).dtype)


def _names(full: list[str]) -> str:
    return f"{full[0]} and others are" if len(full) > 1 else f"the values of {full[0]} are"


def _way_out(source: TensorSource) -> str:
    beside = likely_scale_files(source.paths)
    if beside:
        names = " or ".join(path.name for path in beside)
        return (
            f"The scales may be in {names} beside it: rename that file to "
            f"{expected_name(source.paths[0])} if it holds a number for each layer, or start from "
            "the bf16, fp16 or GGUF version of the model"
        )
    return (
        "Get the file with the scales that belongs to it (such as *_map.safetensors or *_map.pt) "
        "and put it beside the model, or start from the bf16, fp16 or GGUF version of the model"
    )


def expected_name(path: Path) -> str:
    """Return the name that the scales of a file have if they are in a file of their own."""
    return f"{path.stem}_map.safetensors or {path.stem}_map.pt"


def likely_scale_files(paths: tuple[Path, ...]) -> list[Path]:
    """Return files beside a model whose names say that they hold scales."""
    if not paths:
        return []
    folder = paths[0] if paths[0].is_dir() else paths[0].parent
    return [
        path for path in sorted(folder.glob("*"))
        if path.suffix in (".safetensors", ".pt", ".pth", ".bin") and path not in paths
        and ("_map" in path.stem or "scale" in path.stem.lower())
    ][:3]  # fmt: skip
