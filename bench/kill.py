"""Kill ``nvfp4 quantize`` at random moments, and check that it never leaves a broken file.

Each run is killed with SIGKILL at a uniformly random moment. Then the target must be absent or
complete (``nvfp4 verify`` against the source), and the next run must remove the unfinished file. A
run that ends with SIGTERM must not leave any file. Run ``python bench/kill.py --blocks 3``.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from synthetic_wan import BLOCKS, write_wan

NVFP4 = (sys.executable, "-m", "nvfp4_foundry.quant.cli")


@dataclass
class Counts:
    """Counts of outcomes. ``broken``, ``stale`` and ``left_by_sigterm`` must be zero.

    Attributes:
        kills: number of killed runs.
        target_absent: kills after which there was no target.
        target_complete: kills after which the target verified.
        left_partials: kills that left an unfinished file, which the next run must remove.
        broken: kills after which there was a target that did not verify.
        stale: runs that started to write without removing an earlier unfinished file.
        left_by_sigterm: number of files after the run that SIGTERM ended.
        sigterm_code: exit code of that run.
        final_run: whether an undisturbed run verified and left no unfinished file.
    """

    kills: int = 0
    target_absent: int = 0
    target_complete: int = 0
    left_partials: int = 0
    broken: int = 0
    stale: int = 0
    left_by_sigterm: int = 0
    sigterm_code: int = 0
    final_run: bool = False

    @property
    def ok(self) -> bool:
        """Whether no run broke the promise."""
        return self.final_run and not (self.broken or self.stale or self.left_by_sigterm)


class Victim:
    """The conversion to kill, and the files in its folder."""

    def __init__(self, folder: Path, preset: str):
        self.source, self.target = folder / "wan.safetensors", folder / "wan_nvfp4.safetensors"
        self._options = ["--preset", preset, "--rounding", "max", "--device", "cpu"]

    def start(self) -> subprocess.Popen[bytes]:
        """Start ``nvfp4 quantize``."""
        command = [*NVFP4, "quantize", str(self.source), str(self.target), *self._options]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def run(self) -> float:
        """Run to the end, and return the time in seconds.

        Raises:
            SystemExit: the run failed.
        """
        start = time.perf_counter()
        if code := self.start().wait():
            raise SystemExit(f"nvfp4 quantize failed with exit code {code}")
        return time.perf_counter() - start

    def is_complete(self) -> bool:
        """Whether ``nvfp4 verify`` finds no problem in the target."""
        command = [*NVFP4, "verify", str(self.target), "--source", str(self.source)]
        return subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0

    def partials(self) -> set[Path]:
        """Return the unfinished files beside the target."""
        return set(self.target.parent.glob(".*.partial"))


def kill_once(victim: Victim, delay: float, counts: Counts) -> None:
    """Kill one run after ``delay`` seconds, and count the outcome."""
    victim.target.unlink(missing_ok=True)
    earlier = victim.partials()
    process = victim.start()
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(min(0.01, max(0.0, deadline - time.monotonic())))
    process.kill()
    process.wait()
    counts.kills += 1
    left = victim.partials()
    counts.left_partials += bool(left - earlier)
    # A run that is killed before it writes has not removed anything yet, so it does not count.
    counts.stale += bool(left & earlier) and bool(left - earlier or victim.target.exists())
    if not victim.target.exists():
        counts.target_absent += 1
    elif victim.is_complete():
        counts.target_complete += 1
    else:
        counts.broken += 1


def terminate_once(victim: Victim, delay: float, counts: Counts) -> None:
    """Send SIGTERM to one run ``delay`` seconds after it started to write."""
    victim.target.unlink(missing_ok=True)
    earlier = victim.partials()
    process = victim.start()
    while process.poll() is None and not victim.partials() - earlier:
        time.sleep(0.01)
    time.sleep(delay)
    process.terminate()
    counts.sigterm_code = process.wait()
    counts.left_by_sigterm = len(victim.partials()) + victim.target.exists()


def run_kills(folder: Path, blocks: int, kills: int, seed: int, preset: str) -> Counts:
    """Write the source, kill runs, terminate one, and finish with an undisturbed run."""
    victim, counts, order = Victim(folder, preset), Counts(), random.Random(seed)
    write_wan(victim.source, blocks)
    seconds = victim.run()
    for index in range(kills):
        delay = order.uniform(0, seconds)
        kill_once(victim, delay, counts)
        print(f"kill {index + 1} after {delay:.2f} of {seconds:.2f} s", file=sys.stderr)
    terminate_once(victim, order.uniform(0, seconds / 4), counts)
    victim.target.unlink(missing_ok=True)
    victim.run()
    counts.final_run = victim.is_complete() and not victim.partials()
    return counts


def main() -> int:
    """Kill runs and print the counts. Return 1 if a run broke the promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="folder for the large files (a temporary one)")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="transformer blocks (30)")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--preset", default="wan2.2-ti2v-5b")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nvfp4-bench-", dir=options.folder) as folder:
        counts = run_kills(
            Path(folder), options.blocks, options.kills, options.seed, options.preset
        )
    if options.json:
        print(json.dumps({**asdict(counts), "ok": counts.ok}, indent=1))
    else:
        print("\n".join(f"{name:16} {value}" for name, value in asdict(counts).items()))
        print("ok" if counts.ok else "NOT OK")
    return 0 if counts.ok else 1


if __name__ == "__main__":
    sys.exit(main())
