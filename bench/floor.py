"""Where the time of a conversion goes: each of its parts alone, with the other cores idle.

Starting is a process that only imports. Reading loads every tensor; arithmetic encodes weights that
are in memory; writing writes as many bytes as the checkpoint has, to the disk. Reading and writing
overlap with the arithmetic, so a conversion cannot take less than the start and the largest of the
three, nor less than the processor time of all parts divided by the number of cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from nvfp4_foundry.quant.checkpoint.writer import CheckpointWriter
from nvfp4_foundry.quant.conversion.choose_encoding import choose_encoding
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.sources.safetensors_file import SafetensorsFile

_START = "import nvfp4_foundry.quant.conversion.convert, nvfp4_foundry.quant.reports.conversion"


@dataclass(frozen=True)
class Part:
    """One part of the work alone: wall and processor seconds."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Floor:
    """The parts of a conversion."""

    start: Part
    read: Part
    arithmetic: Part
    write: Part

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds of all parts."""
        parts = (self.start, self.read, self.arithmetic, self.write)
        return sum(part.cpu_seconds for part in parts)

    @property
    def least_seconds(self) -> float:
        """What a conversion cannot take less than."""
        parts = (self.read, self.arithmetic, self.write)
        shared = sum(part.cpu_seconds for part in parts) / torch.get_num_threads()
        return self.start.seconds + max(shared, *(part.seconds for part in parts))


def measure_floor(source: Path, target: Path, rounding: str) -> Floor:
    """Time the parts of converting a safetensors file to NVFP4; nothing is kept."""
    file = SafetensorsFile(source)
    try:
        start = _timed(lambda: subprocess.run([sys.executable, "-c", _START], check=True))
        read = _timed(lambda: _read(file))
        arithmetic = _arithmetic(file, rounding)
        write = _timed(lambda: _write(file, target))
    finally:
        file.close()
        target.unlink(missing_ok=True)
    return Floor(start, read, arithmetic, write)


def _read(file: SafetensorsFile) -> None:
    for name in file.tensors:
        file.load(name)


def _arithmetic(file: SafetensorsFile, rounding: str) -> Part:
    """Encode one weight of each shape, and count it as often as the shape occurs."""
    fmt = get_format("nvfp4")
    shapes: dict[tuple[int, ...], list[str]] = {}
    for name, info in file.tensors.items():
        if len(info.shape) == 2 and fmt.refusal(info.shape) is None:
            shapes.setdefault(info.shape, []).append(name)
    seconds = cpu_seconds = 0.0
    for names in sorted(shapes.values(), key=lambda names: file.tensors[names[0]].nbytes):
        weight = file.load(names[0])
        choose_encoding(weight, fmt, rounding, None, None)  # makes threads and buffers
        part = _timed(lambda w=weight: choose_encoding(w, fmt, rounding, None, None))
        seconds += part.seconds * len(names)
        cpu_seconds += part.cpu_seconds * len(names)
    return Part(seconds, cpu_seconds)


def _write(file: SafetensorsFile, target: Path) -> None:
    """Write the tensors of the checkpoint, filled with zeros, and sync them."""
    fmt = get_format("nvfp4")
    specs = {}
    for name, info in file.tensors.items():
        encoded = len(info.shape) == 2 and fmt.refusal(info.shape) is None
        of = (fmt if encoded else get_format("keep")).tensor_specs(info.shape, info.dtype)
        specs |= {f"{name}.{suffix}": spec for suffix, spec in of.items()}
    with CheckpointWriter(target, specs, {}) as writer:
        for name, spec in specs.items():
            writer.write(name, torch.zeros(prod(spec.shape), dtype=spec.dtype).view(spec.shape))
        writer.commit()


def _timed(work: Callable[[], object]) -> Part:
    before, start = os.times(), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - start, os.times()
    return Part(seconds, sum(after[:4]) - sum(before[:4]))


def describe_floor(floors: dict[str, Floor], measured: dict[str, float]) -> str:
    """Return the parts of each rounding, in seconds, as a Markdown table."""
    lines = [
        "| rounding | start | read | arithmetic | write | processor, all | floor | measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rounding, floor in floors.items():
        parts = (floor.start, floor.read, floor.arithmetic, floor.write)
        cells = [f"{part.seconds:.1f}" for part in parts]
        cells += [f"{floor.cpu_seconds:.1f}", f"{floor.least_seconds:.1f}"]
        lines.append(f"| `{rounding}` | {' | '.join(cells)} | {measured[rounding]:.1f} |")
    return "\n".join(lines)
