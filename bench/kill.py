"""Kill everything that writes files at random moments, and check that nothing is ever damaged.

Runs are killed with SIGKILL: a fourth of them at a uniformly random moment, a fourth within
milliseconds of an unfinished file, and half right before or after a random one of the last calls
about files: open, write, flush, sync, rename and so on. Then every output must be complete, or what
it was before: absent, or an older file. The next undisturbed run must remove what the killed ones
left. Runs that end with SIGTERM, SIGINT or SIGHUP must leave nothing themselves.

Run ``python bench/kill.py --kills 1000``. Needs a system with ``fork``.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from writing_commands import (
    Child,
    Writing,
    all_writings,
    duration,
    killed_at,
    start,
    steps_of,
)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# The demo takes many times as long as everything else.
_MOST_OF_DEMO = 10
# Of each run, so many calls are candidates for half of the kills.
_LAST_STEPS = 80
# How long after the first unfinished file a run is killed at most, in seconds.
_WRITING_SECONDS = 0.02


@dataclass
class Counts:
    """What became of the runs of one way to write. The last four must be empty.

    Attributes:
        kills: runs that SIGKILL ended.
        ended: runs that ended before they could be killed.
        unfinished: kills that left an unfinished file.
        unchanged: kills after which every output was as before.
        signals: runs that another signal ended.
        damaged: outputs that were neither complete nor as before.
        left_by_signals: files that runs left although they had the time to remove them.
        left_at_the_end: files that the last, undisturbed run did not remove.
    """

    kills: int = 0
    ended: int = 0
    unfinished: int = 0
    unchanged: int = 0
    signals: int = 0
    damaged: list[str] = field(default_factory=list)
    left_by_signals: list[str] = field(default_factory=list)
    left_at_the_end: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no run broke the promise."""
        return not (self.damaged or self.left_by_signals or self.left_at_the_end)


def run_kills(writing: Writing, kills: int, signals: int, order: random.Random) -> Counts:
    """Kill and interrupt runs of one way to write, then let one end."""
    counts, seconds = Counts(), duration(writing)
    steps = steps_of(writing, writing.folder.parent / "steps.txt")
    attempts = 0
    while counts.kills < kills and attempts < 3 * kills + 10:
        attempts += 1
        if attempts % 2:
            _kill_at_step(writing, steps, attempts, counts, order)
        else:
            _kill(writing, seconds, attempts, counts, order)
    for number in range(signals):
        _interrupt(writing, seconds, SIGNALS[number % len(SIGNALS)], counts, order)
    writing.reset(absent=False)
    start(writing.run).wait()
    counts.left_at_the_end += sorted(writing.leftovers())
    return counts


def _kill(
    writing: Writing, seconds: float, attempt: int, counts: Counts, order: random.Random
) -> None:
    content = writing.reset(absent=attempt % 3 == 0)
    earlier = writing.leftovers()
    child = start(writing.run)
    code = _wait_for_moment(writing, child, seconds, earlier, order, writes=attempt % 4 == 0)
    _count(writing, content, earlier, child.kill() if code is None else code, counts)


def _kill_at_step(
    writing: Writing, steps: int, attempt: int, counts: Counts, order: random.Random
) -> None:
    content = writing.reset(absent=attempt % 3 == 0)
    earlier = writing.leftovers()
    step = steps - 1 - order.randrange(min(steps, _LAST_STEPS))
    _count(writing, content, earlier, start(killed_at(writing.run, step)).wait(), counts)


def _count(
    writing: Writing, content: dict[str, bytes], earlier: set[str], code: int, counts: Counts
) -> None:
    """Count what became of a run."""
    if code != -signal.SIGKILL:
        counts.ended += 1
    else:
        counts.kills += 1
        counts.unfinished += bool(writing.leftovers() - earlier)
        now = {name: (writing.folder / name) for name in writing.outputs}
        same = {name: path.read_bytes() for name, path in now.items() if path.exists()} == content
        counts.unchanged += same
    counts.damaged += writing.damaged(content)


def _interrupt(
    writing: Writing, seconds: float, number: signal.Signals, counts: Counts, order: random.Random
) -> None:
    content = writing.reset(absent=False)
    start(writing.run).wait()  # which removes what killed runs left
    earlier = writing.leftovers()
    content = writing.reset(absent=False)
    child = start(writing.run)
    writes = bool(order.randrange(2))
    if _wait_for_moment(writing, child, seconds, earlier, order, writes=writes) is None:
        child.kill(number)
        counts.signals += 1
    counts.left_by_signals += sorted(writing.leftovers() - earlier)
    counts.damaged += writing.damaged(content)


def _wait_for_moment(
    writing: Writing,
    child: Child,
    seconds: float,
    earlier: set[str],
    order: random.Random,
    *,
    writes: bool,
) -> int | None:
    """Wait for the moment to end a run; return its exit code if it ended before, else None.

    ``writes``: soon after there is an unfinished file, else at any moment.
    """
    if writes:
        while not writing.leftovers() - earlier:
            if (code := child.ended()) is not None:
                return code
        time.sleep(order.uniform(0, _WRITING_SECONDS) ** 2 / _WRITING_SECONDS)
        return child.ended()
    deadline = time.monotonic() + order.uniform(0, seconds)
    while time.monotonic() < deadline:
        if (code := child.ended()) is not None:
            return code
        time.sleep(0.001)
    return child.ended()


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill runs and print the counts. Return 1 if a run broke the promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="folder for the files (a temporary one)")
    parser.add_argument("--kills", type=int, default=100, help="runs to kill in all (100)")
    parser.add_argument("--signals", type=int, default=3, help="runs to interrupt, each way (3)")
    parser.add_argument("--only", default="", help="only what begins so, e.g. 'recipe'")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    order, results = random.Random(options.seed), dict[str, Counts]()
    with (
        tempfile.TemporaryDirectory(prefix="nvfp4-bench-", dir=options.folder) as folder,
        all_writings(Path(folder)) as writings,
    ):
        chosen = [w for w in writings if w.name.startswith(options.only)]
        for number, writing in enumerate(chosen):
            share = options.kills // len(chosen) + (number < options.kills % len(chosen))
            share = min(share, _MOST_OF_DEMO) if writing.name == "demo" else share
            results[writing.name] = run_kills(writing, share, options.signals, order)
            print(f"{writing.name}: {results[writing.name]}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({name: asdict(counts) for name, counts in results.items()}, indent=1))
    else:
        _print_table(results)
    return 0 if all(counts.ok for counts in results.values()) else 1


def _print_table(results: dict[str, Counts]) -> None:
    print("| | kills | unfinished file left | all as before | signals | damaged | left |")
    print("|---|---|---|---|---|---|---|")
    total = [0] * 6
    for name, c in results.items():
        left = len(c.left_by_signals) + len(c.left_at_the_end)
        row = [c.kills, c.unfinished, c.unchanged, c.signals, len(c.damaged), left]
        total = [a + b for a, b in zip(total, row, strict=True)]
        print(f"| {name} | {' | '.join(map(str, row))} |")
    print(f"| total | {' | '.join(map(str, total))} |")


if __name__ == "__main__":
    sys.exit(main())
