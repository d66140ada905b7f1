"""Read activation logs that a patched ComfyUI wrote.

The patch of convert_nvfp4 appends a line for every call of a quantized layer:

    format <tab> dynamic|provided <tab> layer <tab> scale <tab> amax <tab> shape

Earlier versions lack the first column. Only ``amax`` is used; ``scale`` is amax / 2688 whatever the
format. ``provided`` lines belong to layers with a static scale: the patch did not measure their
amax. Logs may be compressed (.gz, .xz, .bz2) and may contain several runs.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import BinaryIO

from ..errors import CalibrationError
from ..files.target import require_ordinary
from ..layer_names import name_in_model

# A log that was cut off, or that two processes wrote at once, has a few unreadable lines.
_MOST_BAD_LINES = 0.01
_SHOWN = 80
_SHAPE = re.compile(r"\(\s*\d{1,15}(?:\s*,\s*\d{1,15})*\s*,?\s*\)")
_MODES = ("dynamic", "provided")
_OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_COLUMNS = 6
# Bounds for files that are no logs, or that were made to fill the memory. A log of a long sampling
# compresses to a hundredth.
_LONGEST_LINE = 16_384
_ALWAYS_READ, _MOST_EXPANSION = 16 << 20, 1000
_HOPELESS = 10_000
_MOST_DIFFERENT = 100_000
_LARGEST = 1 << 48


@dataclass
class LoggedLayer:
    """What a log contains for one layer.

    ``amax`` float32, one per call, in the order of the lines; ``tokens`` of all calls; ``widths``
    of the input's last dimension; ``shapes`` a hash of the input shapes, to find layers that
    received the same inputs.
    """

    amax: array[float] = field(default_factory=lambda: array("f"))
    tokens: int = 0
    widths: set[int] = field(default_factory=set)
    shapes: int = 0


@dataclass(frozen=True)
class ActivationLog:
    """The content of an activation log.

    Attributes:
        path: path of the file.
        digest: SHA-256 of the uncompressed text, in hex. It is the same however the log is stored.
        layers: layers by their name in the model, or by the name in the log if the model has no
            such layer.
        lines: number of valid lines.
        provided: number of lines from layers with a static scale, which have no amax.
        bad_lines: number of lines that cannot be read.
        first_bad: the first of these lines, with its number.
        formats: number of lines per format.
    """

    path: Path
    digest: str
    layers: dict[str, LoggedLayer]
    lines: int
    provided: int
    bad_lines: int
    first_bad: str
    formats: dict[str, int]


def read_activation_log(path: Path, known: Collection[str]) -> ActivationLog:
    """Read a log line by line. It takes four bytes of memory per line.

    Args:
        path: the log; its suffix says how it is compressed.
        known: the model's layer names, to recognise names with a prefix.

    Raises:
        CalibrationError: the file cannot be read, has too many bad lines (the message shows the
            first), or has no line with an amax.
    """
    reader = _LogReader(known)
    for number, line in enumerate(_lines(path), 1):
        reader.read(number, line)
        if reader.is_hopeless:
            break
    bad, lines = reader.bad_lines, reader.lines
    if bad > max(1, _MOST_BAD_LINES * (lines + bad)) or (bad and not lines):
        raise CalibrationError(
            f"{path} is not an activation log: {bad} of {lines + bad} lines do not have the "
            "columns format, dynamic|provided, layer, scale, amax, shape. The first is "
            f"{reader.first_bad}"
        )
    if not reader.layers:
        raise CalibrationError(f"{path}: {_why_empty(reader.provided)}")
    return ActivationLog(
        path=path,
        digest=reader.digest.hexdigest(),
        layers=reader.layers,
        lines=lines,
        provided=reader.provided,
        bad_lines=bad,
        first_bad=reader.first_bad,
        formats=dict(reader.formats),
    )


class _LogReader:
    """State of reading a log: what was read so far."""

    def __init__(self, known: Collection[str]) -> None:
        self.layers: dict[str, LoggedLayer] = {}
        self.formats: Counter[str] = Counter()
        self.digest = hashlib.sha256()
        self.lines = self.provided = self.bad_lines = 0
        self.first_bad = ""
        self._blank = 0
        self._known = known
        self._by_written_name: dict[str, LoggedLayer] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    @property
    def is_hopeless(self) -> bool:
        """Whether so much is unreadable or blank that the rest need not be read."""
        return self.bad_lines + self._blank > _HOPELESS + self.lines

    def read(self, number: int, line: bytes) -> None:
        """Read one line."""
        self.digest.update(line)
        text = line.decode("utf-8", errors="replace").strip()
        if not text:
            self._blank += 1
            return
        parsed = _parse(text, self._shapes)
        if parsed is None:
            self.bad_lines += 1
            self.first_bad = self.first_bad or f"line {number}: {text[:_SHOWN]!r}"
            return
        self.lines += 1
        fmt, name, amax, shape = parsed
        if amax is None:
            self.provided += 1
            return
        self.formats[fmt] += 1
        layer = self._layer(name)
        layer.amax.append(amax)
        layer.tokens += prod(shape[:-1])
        layer.widths.add(shape[-1])
        layer.shapes = hash((layer.shapes, shape))

    def _layer(self, written: str) -> LoggedLayer:
        if written not in self._by_written_name:
            if len(self._by_written_name) >= _MOST_DIFFERENT:
                raise CalibrationError(
                    f"the activation log names over {_MOST_DIFFERENT} layers, which no model has"
                )
            name = name_in_model(written, self._known)
            self._by_written_name[written] = self.layers.setdefault(name, LoggedLayer())
        return self._by_written_name[written]


def _why_empty(provided: int) -> str:
    if provided:
        return (
            "every layer in the log had a static scale, so no amax was logged; log a checkpoint "
            "without input_scale"
        )
    return "the log is empty; sample with the patched ComfyUI first"


def _lines(path: Path) -> Iterator[bytes]:
    try:
        require_ordinary(path)
        most = _ALWAYS_READ + _MOST_EXPANSION * path.stat().st_size
        opener = _OPENERS.get(path.suffix.lower())
        file: BinaryIO = opener(path, "rb") if opener else path.open("rb")  # type: ignore[assignment]
        with file:
            while line := file.readline(_LONGEST_LINE + 1):
                most -= len(line)
                if len(line) > _LONGEST_LINE or most < 0:
                    raise CalibrationError(_why_endless(path, line))
                yield line
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
        raise CalibrationError(f"cannot read the activation log {path}: {error}") from error


def _why_endless(path: Path, line: bytes) -> str:
    if len(line) > _LONGEST_LINE:
        return f"{path} is not an activation log: it has a line of over {_LONGEST_LINE} bytes"
    return (
        f"{path} is not an activation log: it expands to over {_MOST_EXPANSION} times its size; "
        "if it is one, unpack it first"
    )


def _parse(
    text: str, shapes: dict[str, tuple[int, ...]]
) -> tuple[str, str, float | None, tuple[int, ...]] | None:
    """Return format, layer, amax (None: provided) and shape of a line; None for a bad line.

    ``shapes`` caches the parsed shapes, of which a log has only a few.
    """
    columns = text.split("\t")
    if len(columns) == _COLUMNS - 1:
        columns = ["nvfp4", *columns]
    if len(columns) != _COLUMNS or columns[1] not in _MODES or not columns[2]:
        return None
    fmt, mode, layer, _, amax, shape = columns
    if shape not in shapes:
        found = tuple(map(int, re.findall(r"\d+", shape))) if _SHAPE.fullmatch(shape) else ()
        if not found or prod(found) > _LARGEST or len(shapes) >= _MOST_DIFFERENT:
            return None
        shapes[shape] = found
    if mode == "provided":
        return fmt, layer, None, shapes[shape]
    try:
        value = float(amax)
    except ValueError:
        return None
    return None if value < 0 else (fmt, layer, value, shapes[shape])
