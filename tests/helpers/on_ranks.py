"""Conversions and measurements that a test makes alone and on several ranks, to compare them.

``python -m torch.distributed.run ... -m tests.helpers.on_ranks FOLDER`` makes them on ranks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from nvfp4_foundry.quant.calibration import load_statistics
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.ranks.alone import ALONE, Ranks
from nvfp4_foundry.quant.ranks.group import RankGroup
from nvfp4_foundry.quant.ranks.place import Place, place_here
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sources import open_source
from torch.distributed import TCPStore

from tests.helpers.conversions import plan_of

ROOT = Path(__file__).parents[2]
RULES = "*.q = float8_e4m3fn\nblocks.* = nvfp4"
TIMEOUT = timedelta(seconds=20)
#: Ranks of `in_threads` that are of another kind.
KINDS: dict[int, type[RankGroup]] = {}


def torchrun(ranks: int, *arguments: object) -> subprocess.Popen[str]:
    """Start a module on ranks of one thread each, in a process group of their own."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "-m",
         *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def in_threads(
    size: int,
    work: Callable[[RankGroup], Any],
    machines: str = "aaa",
    absent: int | None = None,
    **settings: float,
) -> list[Any]:
    """Run ranks as threads, each with a connection of its own to one store.

    Returns what each rank returned or raised, and the list of those that do not report a failure.
    One that is absent never starts.
    """
    host = TCPStore("localhost", 0, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
    groups = []

    def live(rank: int) -> Any:
        def connect() -> TCPStore:
            return TCPStore("localhost", host.port, timeout=TIMEOUT, wait_for_workers=False)

        kind = KINDS.get(rank, RankGroup)
        group = kind(Place(rank, size, rank, machines[rank]), connect=connect, **settings)
        groups.append(group)
        try:
            with group:
                return work(group)
        except BaseException as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        found = [pool.submit(live, rank) for rank in range(size) if rank != absent]
        answers = [future.result(timeout=60) for future in found]
    return [*answers, sorted(g.rank for g in groups if not g.speaks)]


def make(folder: Path, into: Path, ranks: Ranks = ALONE) -> None:
    """Convert ``model`` and ``whole`` of a folder, and measure ``model``.

    All ranks get the same reports, which each writes to a file of its own.
    """
    statistics = load_statistics(folder / "calibration.safetensors")
    told = []
    with open_source(folder / "model.safetensors") as source:
        for rounding in ("max", "gptq"):
            plan = plan_of(source, RULES, rounding=rounding)
            target = into / f"{rounding}.safetensors"
            report = convert(source, plan, target, statistics=statistics, ranks=ranks)
            told.append({**report.to_json(), "seconds": 0})
        sensitivity = measure_sensitivity(
            source, statistics, ("nvfp4", "float8_e4m3fn"), rounding="gptq", ranks=ranks
        )
        told.append(sensitivity.to_json())
    with open_source(folder / "whole.safetensors") as source:
        plan = plan_of(source, "blocks.*.ffn.0 = nvfp4")
        convert(source, plan, into / "whole.safetensors", whole_file=True, ranks=ranks)
    (into / f"told-{ranks.rank}.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = place_here()
    assert place is not None
    with RankGroup(place) as group:
        make(Path(sys.argv[1]), Path(sys.argv[2]), group)
