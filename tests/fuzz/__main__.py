"""``python -m tests.fuzz --inputs 1000000``: mutated inputs for every parser, and a table.

Returns 1 if an input ended in an error without a name, took over 5 s, or over 1 GB of memory.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .children import Batch, run_batches
from .parsers import FUZZERS
from .specimens import write_specimens

_BATCH = 200
_IN_MEMORY = Path("/dev/shm")


def main() -> int:
    """Run the fuzzers; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="in total")
    parser.add_argument("--seed", default="0", help="other inputs for another one")
    parser.add_argument(
        "--only", choices=sorted(FUZZERS), action="append", help="one parser; may be repeated"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at once")
    options = parser.parse_args()
    names = options.only or list(FUZZERS)
    done: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    wrong: dict[str, Counter[str]] = {name: Counter() for name in names}
    first: set[tuple[str, str]] = set()
    memory = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        valid = write_specimens(Path(folder))
        batches = _batches(names, options.inputs, options.seed, began + options.seconds)
        for result in run_batches(batches, valid, options.processes):
            done[result.name] += result.inputs
            seconds[result.name] += result.seconds  # type: ignore[assignment] - of a processor
            for seed, problem in result.problems:
                sort, _, text = problem.partition(": ")
                wrong[result.name][sort] += 1
                if (result.name, kind := f"{sort}: {text[:90]}") not in first:
                    first.add((result.name, kind))
                    print(f"{result.name}, seed {seed!r}: {problem}", file=sys.stderr, flush=True)
    _print_table(done, seconds, wrong)
    print(f"{options.processes} at once, {time.monotonic() - began:.0f} s")
    return 1 if any(sum(found.values()) for found in wrong.values()) else 0


def _batches(names: list[str], inputs: int, seed: str, ends: float) -> Iterator[Batch]:
    """Yield the inputs in turns, so that a run that is cut short has some of every parser."""
    shares = {name: FUZZERS[name][1] for name in names}
    left = {n: max(1, inputs * share // sum(shares.values())) for n, share in shares.items()}
    at = dict.fromkeys(names, 0)
    while any(left.values()):
        for name in names:
            count = min(left[name], _BATCH * shares[name])
            if not count:
                continue
            if time.monotonic() > ends:
                return
            yield Batch(name, [f"{seed} {name} {at[name] + i}" for i in range(count)])
            left[name] -= count
            at[name] += count


def _print_table(done: Counter[str], seconds: Counter[str], wrong: dict[str, Counter[str]]) -> None:
    print("| parser | inputs | processor, s | unnamed errors | over 5 s | over 1 GB |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, found in wrong.items():
        kinds = " | ".join(str(found[kind]) for kind in ("unnamed", "time", "memory"))
        print(f"| {name} | {done[name]:,} | {seconds[name]:,.0f} | {kinds} |")
    total = [sum(f[kind] for f in wrong.values()) for kind in ("unnamed", "time", "memory")]
    used = sum(seconds.values())
    print(f"| all | {sum(done.values()):,} | {used:,.0f} | {' | '.join(map(str, total))} |")


if __name__ == "__main__":
    sys.exit(main())
