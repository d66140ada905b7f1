"""Time the encoding of one weight by every format and rounding, from memory to memory.

The figures are processor time per weight on one thread, the least of several runs, so that other
programs on the machine change little. Run ``python bench/encoding.py``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from nvfp4_foundry.quant.formats import FORMATS, WeightFormat, get_format
from nvfp4_foundry.quant.rounding import SweepRule, get_rounding
from nvfp4_foundry.quant.text import text_table

_SIGMA = 0.02


def least_time(work: Callable[[], object], repeats: int) -> float:
    """Return the least processor time of this thread, in seconds, after one run that warms up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


def measure(fmt: WeightFormat, weight: torch.Tensor, repeats: int) -> list[tuple[str, ...]]:
    """Return a row of the table for each rounding of a format."""
    channels = torch.rand(weight.shape[1], generator=torch.Generator().manual_seed(0)) + 0.3
    rules = {"max": get_rounding("max")}
    if fmt.has_scale_choice:
        rules["mse"] = get_rounding("mse")
        rules["weighted"] = SweepRule("weighted", channels)
    rows = []
    for name, rule in rules.items():
        seconds = least_time(lambda r=rule: fmt.encode(weight, r, measure_error=True), repeats)
        nanoseconds = seconds / weight.numel() * 1e9
        rows.append((fmt.name, name, f"{nanoseconds:.1f}", f"{2e3 / nanoseconds:.0f}"))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="+", default=[f for f in FORMATS if f != "keep"])
    parser.add_argument("--shape", type=int, nargs=2, default=(3072, 3072))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(*options.shape, generator=generator) * _SIGMA).bfloat16()
    rows = [
        row
        for name in options.formats
        if get_format(name).is_quantized and get_format(name).refusal(tuple(weight.shape)) is None
        for row in measure(get_format(name), weight, options.repeats)
    ]
    print(text_table(("format", "rounding", "ns per weight", "MB/s of bf16 per core"), rows))


if __name__ == "__main__":
    main()
