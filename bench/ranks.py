"""Measure what several ranks gain, and what is left if one is killed.

Writes a random model into a folder and converts it with ``nvfp4 quantize`` on one rank and on
several by turns, with the same number of threads in each rank. Then it kills a random rank of a
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
    before_the_file: int = 0
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


def start(ranks: int, source: Path, target: Path, rounding: str) -> subprocess.Popen[str]:
    """Start a conversion on ranks of one thread."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", CLI, "quantize", source, target, "--preset", "all",
               "--rounding", rounding, "--overwrite"]  # fmt: skip
    return subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def seconds_of_work(ranks: int, source: Path, target: Path, rounding: str) -> float:
    """Return the time that the report states, which leaves out the start of torch."""
    process = start(ranks, source, target, rounding)
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
        time.sleep(random.uniform(0, 1.5))
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(death)
        sent = time.monotonic()
        output, _ = process.communicate(timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        deaths.faults.append(f"rank {number} of {ranks}: {death.name}: the others hung")
        process.kill()
        return
    if process.returncode == 0:
        target.unlink()  # it had finished before
        return
    deaths.killed += 1
    deaths.before_the_file += not begun
    deaths.seconds.append(time.monotonic() - sent)
    if deaths.seconds[-1] > _SLOW_SECONDS:
        deaths.faults.append(f"rank {number} of {ranks}: {death.name}: slow\n{output}")
    left = [path.name for path in folder.iterdir()]
    if left or "Traceback" in output.split("torch/distributed")[0]:
        deaths.faults.append(f"rank {number} of {ranks}: {death.name}: left {left}\n{output}")


def _rank(process: subprocess.Popen[str], number: int) -> psutil.Process:
    """Return the process of a rank, once torchrun has started it."""
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children():
                if child.environ().get("RANK") == str(number):
                    return child
        time.sleep(0.01)
    raise SystemExit(process.communicate()[0])


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
        target, counts = folder / "out.safetensors", (1, options.ranks)
        times: dict[int, list[float]] = {count: [] for count in counts}
        for _ in range(options.rounds):
            for count in counts:
                times[count].append(seconds_of_work(count, source, target, options.rounding))
        target.unlink(missing_ok=True)
        if options.rounds:
            alone = median(times[1])
            rows = [
                (str(n), f"{median(t):.1f}", f"{alone / median(t):.2f}") for n, t in times.items()
            ]
            print(text_table(("ranks", "seconds", "times as fast"), rows))
        deaths = Deaths()
        for _ in range(options.kills):
            kill_one(options.ranks, source, folder, options.rounding, deaths)
        if options.kills:
            print(
                f"{deaths.killed} conversions killed, {deaths.before_the_file} perhaps before the "
                f"file; the others ended after {median(deaths.seconds):.1f} s, at most "
                f"{max(deaths.seconds):.1f} s; faults: {len(deaths.faults)}"
            )
            print("\n".join(deaths.faults))


if __name__ == "__main__":
    main()
