"""``python -m tests.fuzz --inputs 1000000``: mutated inputs for every parser, and a table.

Returns 1 if an input ended in an error without a name, took over 5 s, or over 1 GB of memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from .one_input import MOST_SECONDS, run_input
from .parsers import FUZZERS
from .specimens import Specimens, write_specimens

_BATCH = 200
# A child that answers nothing for so long hangs in C code, where no signal reaches it.
_SILENT = 20 * MOST_SECONDS


def main() -> int:
    """Run the fuzzers; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="in total")
    parser.add_argument("--seed", default="0", help="other inputs for another one")
    parser.add_argument("--only", choices=sorted(FUZZERS), help="one parser")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    options = parser.parse_args()
    names = [options.only] if options.only else list(FUZZERS)
    shares = {name: FUZZERS[name][1] for name in names}
    wanted = {n: max(1, options.inputs * s // sum(shares.values())) for n, s in shares.items()}
    done: Counter[str] = Counter()
    wrong: dict[str, Counter[str]] = {name: Counter() for name in names}
    first: dict[tuple[str, str], str] = {}
    ends = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as folder:
        valid = write_specimens(Path(folder))
        while time.monotonic() < ends and any(done[n] < wanted[n] for n in names):
            for name in names:
                count = min(wanted[name] - done[name], _BATCH * shares[name])
                seeds = [f"{options.seed} {name} {done[name] + i}" for i in range(max(0, count))]
                for seed, problem in _in_a_child(name, seeds, valid):
                    kind = problem.partition(":")[0] + ": " + problem.partition(": ")[2][:90]
                    wrong[name][problem.partition(":")[0]] += 1
                    if first.setdefault((name, kind), seed) == seed:
                        print(f"{name}, seed {seed!r}: {problem}", file=sys.stderr, flush=True)
                done[name] += len(seeds)
    _print_table(done, wrong)
    return 1 if any(sum(found.values()) for found in wrong.values()) else 0


def _in_a_child(name: str, seeds: list[str], valid: Specimens) -> list[tuple[str, str]]:
    """Return the seeds with problems. A child that dies or hangs counts for the seed it had."""
    problems: list[tuple[str, str]] = []
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    at = 0
    while at < len(seeds):
        ours, theirs = context.Pipe()
        child = context.Process(target=_serve, args=(name, seeds[at:], valid, theirs))
        child.start()
        theirs.close()
        while at < len(seeds):
            try:
                if not ours.poll(_SILENT):
                    problems.append((seeds[at], f"time: hangs for over {_SILENT} s"))
                    at += 1
                    break
                problem = ours.recv()
            except (EOFError, ConnectionError):
                problems.append((seeds[at], "unnamed: the process died"))
                at += 1
                break
            if problem:
                problems.append((seeds[at], problem))
            at += 1
        child.kill()
        child.join()
    return problems


def _serve(name: str, seeds: list[str], valid: Specimens, answers: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            answers.send(run_input(name, seed, valid, Path(folder, "input")))


def _print_table(done: Counter[str], wrong: dict[str, Counter[str]]) -> None:
    print("| parser | inputs | unnamed errors | over 5 s | over 1 GB |\n|---|---|---|---|---|")
    for name, found in wrong.items():
        kinds = " | ".join(str(found[kind]) for kind in ("unnamed", "time", "memory"))
        print(f"| {name} | {done[name]:,} | {kinds} |")
    total = [sum(f[kind] for f in wrong.values()) for kind in ("unnamed", "time", "memory")]
    print(f"| all | {sum(done.values()):,} | {' | '.join(map(str, total))} |")


if __name__ == "__main__":
    sys.exit(main())
