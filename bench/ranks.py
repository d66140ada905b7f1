"""Measure what several ranks gain, and what is left if one is killed.

Writes a random model into a folder and converts it with ``nvfp4 quantize`` by turns on one rank
with one thread, on one rank with as many threads as there are ranks otherwise, and on these ranks
with one thread each. Then it kills a random rank of a
conversion at a random moment, also before the ranks have met, and checks that all end, that no
target and no unfinished file is left, and that the next conversion works. Run
``python bench/ranks.py --ranks 2 --kills 50``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.text import text_table
from safetensors.torch import save_file

CLI = "nvfp4_foundry.quant.cli"
_DEATHS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_PATIENCE_SECONDS = 120
# torchrun kills a rank that has not stopped 30 s after it was told to.
_SLOW_SECONDS = 30


@dataclass
class Deaths:
    """What was seen of the conversions in which a rank was killed; seconds from the kill."""

    killed: int = 0
    at_the_end: int = 0
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def write_model(path: Path, layers: int) -> None:
    """Write a model of this many weights of 2.6 MB."""
    generator = torch.Generator().manual_seed(0)
    save_file(
        {
            f"blocks.{i // 4}.{'abcd'[i % 4]}.weight": torch.randn(
                1280, 1024, generator=generator
            ).bfloat16()
            for i in range(layers)
        },
        path,
    )


def start(
    ranks: int, source: Path, target: Path, rounding: str, threads: int = 1
) -> subprocess.Popen[str]:
    """Start a conversion on ranks of so many threads each."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", CLI, "quantize", source, target, "--preset", "all",
               "--rounding", rounding, "--overwrite"]  # fmt: skip
    return subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def seconds_of_work(ranks: int, threads: int, source: Path, target: Path, rounding: str) -> float:
    """Return the time that the report states, which leaves out the start of torch."""
    process = start(ranks, source, target, rounding, threads)
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(output)
    line = next(line for line in output.splitlines() if line.startswith("time "))
    return float(line.split()[1])


def kill_one(ranks: int, source: Path, folder: Path, rounding: str, deaths: Deaths) -> None:
    """Kill one rank of a conversion at a random moment, and look at what remains."""
    target = folder / "out.safetensors"
    process = start(ranks, source, target, rounding)
    number, death = random.randrange(ranks), random.choice(_DEATHS)
    begun = random.random() < 0.8  # most kills come while the file is written
    try:
        victim = _rank(process, number)
        while begun and process.poll() is None and not list(folder.glob(".*.partial")):
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.7 if begun else 8))
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(death)
        sent = time.monotonic()
        output, _ = process.communicate(timeout=_PATIENCE_SECONDS)
        seconds = time.monotonic() - sent
    except subprocess.TimeoutExpired:
        deaths.faults.append(f"rank {number} of {ranks}: {death.name}: the others hung")
        process.kill()
        return
    if target.exists():  # it had finished before
        if verify_checkpoint(target, source).problems:
            deaths.faults.append(f"rank {number} of {ranks}: {death.name}: damaged")
        target.unlink()
        deaths.at_the_end += 1
    deaths.killed += 1
    deaths.seconds.append(seconds)
    if seconds > _SLOW_SECONDS:
        deaths.faults.append(f"rank {number} of {ranks}: {death.name}: slow\n{output}")
    for left in list(folder.iterdir()):
        deaths.faults.append(f"rank {number} of {ranks}: {death.name}: left {left}\n{output}")
        left.unlink()


def _rank(process: subprocess.Popen[str], number: int) -> psutil.Process:
    """Return the process of a rank, once torchrun has started it."""
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children():
                if child.environ().get("RANK") == str(number):
                    return child
        time.sleep(0.01)
    raise SystemExit(process.communicate()[0])


def _table(seconds: dict[tuple[int, int], float]) -> str:
    """Return the times of ranks and threads, and how much faster they are than one of each."""
    rows = [
        (str(ranks), str(threads), f"{time:.1f}", f"{seconds[1, 1] / time:.2f}")
        for (ranks, threads), time in seconds.items()
    ]
    return text_table(("ranks", "threads of each", "seconds", "times as fast"), rows)


def main() -> None:
    """Measure, kill, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--layers", type=int, default=96, help="of 2.6 MB each")
    parser.add_argument("--rounding", default="mse")
    parser.add_argument("--rounds", type=int, default=3, help="timed conversions of each kind")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as place:
        source, folder = Path(place) / "model.safetensors", Path(place) / "out"
        folder.mkdir()
        write_model(source, options.layers)
        target = folder / "out.safetensors"
        kinds = ((1, 1), (1, options.ranks), (options.ranks, 1))
        times: dict[tuple[int, int], list[float]] = {kind: [] for kind in kinds}
        for _ in range(options.rounds):
            for kind in kinds:
                times[kind].append(seconds_of_work(*kind, source, target, options.rounding))
        target.unlink(missing_ok=True)
        if options.rounds:
            print(_table({kind: median(found) for kind, found in times.items()}))
        deaths = Deaths()
        for _ in range(options.kills):
            kill_one(options.ranks, source, folder, options.rounding, deaths)
        if options.kills:
            print(
                f"{deaths.killed} conversions killed, {deaths.at_the_end} of them when the file "
                f"was complete; all ended after {median(deaths.seconds):.1f} s, at most "
                f"{max(deaths.seconds):.1f} s; faults: {len(deaths.faults)}"
            )
            print("\n".join(deaths.faults))


if __name__ == "__main__":
    main()
