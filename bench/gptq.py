"""Measure what `gptq` and `gptaq` cost for the layers of WAN 2.2, and what a whole model takes.

Each distinct shape runs once, in a process of its own, so that its peak memory is its own: gather
the second moments of correlated inputs, factorize, round the weight with error feedback, and judge
it on held-out rows. Gathering is timed per token with ``--tokens`` tokens and counted for eight
tokens per channel. The totals are sums of the measured times over the layers of the model. The
GPU's hours are an ESTIMATE: the same operations at ``--gpu-tflops``. Run
``python bench/gptq.py --model 5b 14b``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import torch
from nvfp4_foundry.quant.calibration.moment_accumulator import MomentAccumulator, moments_bytes
from nvfp4_foundry.quant.calibration.moment_schedule import ENOUGH_TOKENS
from nvfp4_foundry.quant.calibration.moments import InputMoments
from nvfp4_foundry.quant.conversion.output_trial import OutputTrial, decode_with
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.reports.markdown import table
from nvfp4_foundry.quant.rounding import SecondMoments, get_rounding

_FACTORS, _HELD_OUT_ROWS, _SIGMA = 64, 256, 0.02
# The rows that a GPU rounds together, and what the loop over channels launches for each channel.
_GPU_ROWS, _LAUNCHES_PER_CHANNEL, _LAUNCH_SECONDS = 4096, 8, 5e-6


@dataclass(frozen=True)
class Shape:
    """A kind of layer: its width, how many layers and distinct inputs of it a block has."""

    name: str
    rows: int
    columns: int
    layers: int
    inputs: int


_WARM_UP = Shape("warm-up", 64, 64, 1, 1)


@dataclass(frozen=True)
class Cost:
    """What one layer of a shape costs: seconds by step, peak memory and file size in bytes."""

    name: str
    rows: int
    columns: int
    gather_per_token: float
    factorize: float
    round: float
    judge: float
    peak_bytes: int
    stored_bytes: int

    @property
    def gather(self) -> float:
        """Seconds to gather enough tokens for this input."""
        return self.gather_per_token * ENOUGH_TOKENS * self.columns


def model_shapes(width: int, ffn: int) -> tuple[Shape, ...]:
    """Return the layers of a WAN block whose inputs have Hessians.

    ``self_attn.{q,k,v}`` share one input, ``cross_attn.{k,v}`` the text. The others have their own.
    """
    return (
        Shape("attention", width, width, 8, 5),
        Shape("ffn.0", ffn, width, 1, 1),
        Shape("ffn.2", width, ffn, 1, 1),
    )


MODELS = {
    "5b": ("WAN 2.2 5B", 30, model_shapes(3072, 14336)),
    "14b": ("WAN 2.2 14B, one expert", 40, model_shapes(5120, 13824)),
}


def measure(shape: Shape, rounding: str, tokens: int) -> Cost:
    """Measure one layer in this process."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(_FACTORS, shape.columns, generator=generator)

    def inputs(count: int) -> torch.Tensor:
        factors = torch.randn(count, _FACTORS, generator=generator)
        noise = torch.randn(count, shape.columns, generator=generator)
        return (factors @ mixing).div_(_FACTORS**0.5).add_(noise)

    weight = torch.randn(shape.rows, shape.columns, generator=generator).mul_(_SIGMA).bfloat16()
    moments, per_token, stored = _gather(shape, inputs(tokens), tokens)
    rule = get_rounding(rounding).for_input(torch.ones(shape.columns), moments)
    fmt = get_format("nvfp4")
    # The first call factorizes too, for the few rows of one block.
    start = time.perf_counter()
    fmt.encode(weight[:16], rule)
    factorized = time.perf_counter()
    encoded = fmt.encode(weight, rule)
    rounded = time.perf_counter()
    trial = OutputTrial(weight, inputs(_HELD_OUT_ROWS), fmt, None)
    trial.measure(decode_with(fmt, encoded.tensors, tuple(weight.shape)))
    judged = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(
        shape.name, shape.rows, shape.columns, per_token, factorized - start,
        rounded - factorized, judged - rounded, peak, stored,
    )  # fmt: skip


def _gather(shape: Shape, x: torch.Tensor, tokens: int) -> tuple[SecondMoments, float, int]:
    """Return the moments, the seconds per token and the bytes of the stored part."""
    accumulator = MomentAccumulator(shape.columns, torch.device("cpu"))
    amax, fresh = x.abs().max(), torch.tensor(True)
    start = time.perf_counter()
    accumulator.add(x, amax, fresh)
    seconds = time.perf_counter() - start
    part = accumulator.finish("run", None)
    assert part is not None and part.tensors is not None
    del accumulator
    return (
        InputMoments((part,)).load(),
        seconds / tokens,
        sum(tensor.nbytes for tensor in part.tensors.values()),
    )


def measure_apart(shape: Shape, rounding: str, tokens: int) -> Cost:
    """Measure one layer in a process of its own.

    Raises:
        SystemExit: the process failed.
    """
    one = json.dumps(asdict(shape))
    command = [sys.executable, str(Path(__file__)), "--one", one, "--tokens", str(tokens)]
    done = subprocess.run(
        [*command, "--rounding", rounding], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{shape.name} failed:\n{done.stderr}")
    return Cost(**json.loads(done.stdout))


def gpu_seconds(shape: Shape, tflops: float) -> float:
    """Return the estimated seconds for all layers of a shape in one block on a GPU, with gptq.

    Counts the matrix products at ``tflops`` and the launches of the loop over channels. Gathering
    is part of the sampling, and not counted.
    """
    rows, columns = shape.rows, shape.columns
    products = shape.layers * rows * columns**2 + shape.inputs * columns**3 / 3
    launches = shape.layers * ceil(rows / _GPU_ROWS) * columns * _LAUNCHES_PER_CHANNEL
    return products / (tflops * 1e12) + launches * _LAUNCH_SECONDS


def describe(costs: list[Cost]) -> str:
    """Return the costs by layer as a Markdown table."""
    headings = (
        "layer", "out x in", "ms per token", "gather", "factorize", "round", "judge", "peak",
        "on disk",
    )  # fmt: skip
    return table(
        headings,
        [
            (
                c.name,
                f"{c.rows} x {c.columns}",
                f"{1000 * c.gather_per_token:.2f}",
                f"{c.gather:.0f} s",
                f"{c.factorize:.1f} s",
                f"{c.round:.1f} s",
                f"{c.judge:.1f} s",
                f"{c.peak_bytes / 1e9:.2f} GB",
                f"{c.stored_bytes / 1e6:.0f} MB",
            )
            for c in costs
        ],
    )


def total(
    title: str, blocks: int, shapes: tuple[Shape, ...], costs: list[Cost], tflops: float
) -> tuple[str, ...]:
    """Return the row of a whole model: hours to gather and to quantize, memory and disk."""
    pairs = list(zip(shapes, costs, strict=True))
    gather = blocks * sum(s.inputs * c.gather for s, c in pairs)
    quantize = blocks * sum(
        s.inputs * c.factorize + s.layers * (c.round + c.judge) for s, c in pairs
    )
    on_gpu = blocks * sum(gpu_seconds(s, tflops) for s in shapes)
    return (
        title,
        f"{gather / 3600:.1f} h",
        f"{quantize / 3600:.1f} h",
        f"{max(c.peak_bytes for c in costs) / 1e9:.1f} GB",
        f"{blocks * sum(s.inputs * moments_bytes(s.columns) for s in shapes) / 1e9:.0f} GB",
        f"{blocks * sum(s.inputs * c.stored_bytes for s, c in pairs) / 1e9:.0f} GB",
        f"{on_gpu / 3600:.2f} h",
    )


def main() -> int:
    """Measure and print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounding", choices=("gptq", "gptaq"), default="gptq")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens to time gathering with")
    parser.add_argument(
        "--gpu-tflops", type=float, default=40.0, help="float32 speed of the GPU to estimate for"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(_WARM_UP, options.rounding, 64)  # what torch loads at first use is not the layer's
        cost = measure(Shape(**json.loads(options.one)), options.rounding, options.tokens)
        print(json.dumps(asdict(cost)))
        return 0
    totals = []
    for name in options.model:
        title, blocks, shapes = MODELS[name]
        costs = [measure_apart(shape, options.rounding, options.tokens) for shape in shapes]
        print(f"{title}, {options.rounding}:\n\n{describe(costs)}\n", flush=True)
        totals.append(total(title, blocks, shapes, costs, options.gpu_tflops))
    headings = (
        "model", "gather", "quantize", "peak", "gathered at once", "on disk",
        f"ESTIMATE on a GPU of {options.gpu_tflops:g} TFLOPS",
    )  # fmt: skip
    print(table(headings, totals))
    return 0


if __name__ == "__main__":
    sys.exit(main())
