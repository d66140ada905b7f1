"""Measure speed and peak memory of ``nvfp4 quantize`` and ``verify`` on a WAN 2.2 TI2V 5B.

Writes a random model of 10 GB into a folder, converts it by each preset in a separate process,
verifies the result against the source, and deletes both. Speed is source bytes divided by the time
of the whole process, including imports. ``--baseline`` also times comfy-kitchen's eager NVFP4
quantizer on the same shapes in memory, to compare machines. Run
``python bench/conversion.py --baseline``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import comfy_kitchen
import psutil
import torch
from nvfp4_foundry.quant.formats.nvfp4_scales import NVFP4_MAX
from nvfp4_foundry.quant.text import text_table
from synthetic_wan import BLOCKS, wan_shapes, write_wan

NVFP4 = (sys.executable, "-m", "nvfp4_foundry.quant.cli")
PRESETS = ("wan2.2-ti2v-5b", "all", "smart")
_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Run:
    """One process: wall time, largest observed resident set, exit code, and printed text."""

    seconds: float
    peak_bytes: int
    code: int
    output: str


@dataclass(frozen=True)
class Conversion:
    """Quantizing and verifying by one preset. Speeds are MB of source per second."""

    preset: str
    seconds: float
    speed: float
    peak_bytes: int
    output_bytes: int
    verify_speed: float
    verify_peak_bytes: int
    verified: bool
    load: float


def run_measured(command: list[str]) -> Run:
    """Run a command to its end, and watch its resident memory."""
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            try:
                peak = max(peak, process.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(_POLL_SECONDS)
        code = process.wait()
        seconds = time.perf_counter() - start
        output.seek(0)
        return Run(seconds, peak, code, output.read())


def measure(source: Path, target: Path, preset: str, *, cold: bool) -> Conversion:
    """Convert and verify once, then delete the target."""
    size = source.stat().st_size
    if cold:
        forget_cached(source)
    try:
        options = ["--preset", preset, "--rounding", "max", "--device", "cpu"]
        run = run_measured([*NVFP4, "quantize", str(source), str(target), *options])
        if run.code:
            raise SystemExit(f"quantize --preset {preset} failed:\n{run.output}")
        check = run_measured([*NVFP4, "verify", str(target), "--source", str(source)])
        if check.code:
            print(check.output, file=sys.stderr)
        return Conversion(
            preset=preset,
            seconds=run.seconds,
            speed=size / run.seconds / 1e6,
            peak_bytes=run.peak_bytes,
            output_bytes=target.stat().st_size,
            verify_speed=size / check.seconds / 1e6,
            verify_peak_bytes=check.peak_bytes,
            verified=check.code == 0,
            load=psutil.getloadavg()[0],
        )
    finally:
        target.unlink(missing_ok=True)


def forget_cached(path: Path) -> None:
    """Drop a file from the page cache, so that it is read from the disk (Linux)."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_baseline(blocks: int) -> float:
    """Return MB/s of comfy-kitchen's eager quantizer on the weights inside the blocks.

    Times each shape once, after a first call on a small weight.
    """
    shapes = wan_shapes(blocks)
    matrices = [s for name, s in shapes.items() if name.startswith("blocks.") and len(s) == 2]
    _time_baseline((128, 128))
    seconds = {shape: _time_baseline(shape) for shape in set(matrices)}
    return sum(prod(s) * 2 for s in matrices) / sum(seconds[s] for s in matrices) / 1e6


def _time_baseline(shape: tuple[int, ...]) -> float:
    weight = torch.empty(shape).normal_(std=0.02).bfloat16()
    scale = weight.abs().amax().float() / NVFP4_MAX
    with comfy_kitchen.use_backend("eager"):
        start = time.perf_counter()
        comfy_kitchen.quantize_nvfp4(weight, scale)
        return time.perf_counter() - start


def main() -> int:
    """Measure and print. Return 1 if a checkpoint fails verification."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="folder for the large files (a temporary one)")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="transformer blocks (30)")
    parser.add_argument("--preset", nargs="+", default=list(PRESETS), help="presets to measure")
    parser.add_argument("--repeats", type=int, default=1, help="conversions per preset")
    parser.add_argument("--cold", action="store_true", help="drop the source from the page cache")
    parser.add_argument("--baseline", action="store_true", help="also time comfy-kitchen")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nvfp4-bench-", dir=options.folder) as folder:
        source, target = Path(folder, "wan.safetensors"), Path(folder, "wan_nvfp4.safetensors")
        write_wan(source, options.blocks)
        results = [
            measure(source, target, preset, cold=options.cold)
            for _ in range(options.repeats)
            for preset in options.preset
        ]
        source_bytes = source.stat().st_size
    baseline = measure_baseline(options.blocks) if options.baseline else None
    if options.json:
        document = {
            "source_bytes": source_bytes,
            "threads": torch.get_num_threads(),
            "baseline_speed": baseline,
            "conversions": [asdict(result) for result in results],
        }
        print(json.dumps(document, indent=1))
    else:
        print(f"source {source_bytes / 1e9:.2f} GB, {torch.get_num_threads()} threads")
        print(describe(results, baseline))
    return 0 if all(result.verified for result in results) else 1


def describe(results: list[Conversion], baseline: float | None) -> str:
    """Return the results as a table."""
    headers = ("preset", "s", "MB/s", "peak GB", "output GB", "verify MB/s", "peak GB", "", "load")
    rows = [
        (
            r.preset,
            f"{r.seconds:.1f}",
            f"{r.speed:.0f}",
            f"{r.peak_bytes / 1e9:.2f}",
            f"{r.output_bytes / 1e9:.2f}",
            f"{r.verify_speed:.0f}",
            f"{r.verify_peak_bytes / 1e9:.2f}",
            "ok" if r.verified else "NOT OK",
            f"{r.load:.1f}",
        )
        for r in results
    ]
    if baseline is not None:
        headers = (*headers, f"x comfy-kitchen ({baseline:.0f} MB/s)")
        rows = [(*row, f"{r.speed / baseline:.1f}") for row, r in zip(rows, results, strict=True)]
    return text_table(headers, rows)


if __name__ == "__main__":
    sys.exit(main())
