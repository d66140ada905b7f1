"""Measure what calibration costs: the time of a WAN-like block with and without the collector.

Observed and plain forwards alternate in pairs, in random order within a pair. The result is the
median of the ratios of the pairs, so that slow changes of the machine cancel. Run
``python bench/calibration_overhead.py --dtype bf16 fp32``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings
from torch.nn import functional

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_HEAD = 128


class Attention(torch.nn.Module):
    """Attention with separate q, k, v and o, as in WAN."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (torch.nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = torch.nn.RMSNorm(width), torch.nn.RMSNorm(width)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Let x [B, T, width] attend to context [B, S, width]."""
        q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(context)), self.v(context)
        q, k, v = (t.unflatten(-1, (-1, _HEAD)).transpose(1, 2) for t in (q, k, v))
        return self.o(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(torch.nn.Module):
    """One transformer block: self-attention, cross-attention to the text, feed-forward."""

    def __init__(self, width: int, ffn: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (torch.nn.LayerNorm(width) for _ in range(3))
        self.self_attn, self.cross_attn = Attention(width), Attention(width)
        self.ffn = torch.nn.Sequential(
            torch.nn.Linear(width, ffn), torch.nn.GELU("tanh"), torch.nn.Linear(ffn, width)
        )

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Advance x [B, T, width], given context [B, S, width]."""
        y = self.norm1(x)
        x = x + self.self_attn(y, y)
        x = x + self.cross_attn(self.norm3(x), context)
        return x + self.ffn(self.norm2(x))


def measure_overhead(arguments: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Time pairs of forwards. Return median seconds, and the ratio with its quartiles."""
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    block = Block(arguments.width, arguments.ffn).to(device, _DTYPES[dtype]).eval()
    shape = (arguments.batch, arguments.tokens, arguments.width)
    x = torch.randn(shape, device=device).to(_DTYPES[dtype])
    context = torch.randn(arguments.batch, arguments.text, arguments.width, device=device)
    context = context.to(_DTYPES[dtype])
    collector = ActivationCollector(
        CollectorSettings(arguments.rows, mean_square_tokens=arguments.mean_square_tokens)
    )

    def plain() -> float:
        return _seconds(lambda: block(x, context), device)

    def observed() -> float:
        with collector.observe(block):
            collector.begin_call(1.0, list(range(arguments.batch)))
            return _seconds(lambda: block(x, context), device)

    plain_times, observed_times = [], []
    order = random.Random(0)
    with torch.inference_mode():
        for warm_up in (plain, observed, observed):
            warm_up()
        for _ in range(arguments.repeats):
            steps = [(plain, plain_times), (observed, observed_times)]
            order.shuffle(steps)
            for run, times in steps:
                times.append(run())
    ratios = [b / a for a, b in zip(plain_times, observed_times, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "dtype": dtype,
        "plain_seconds": statistics.median(plain_times),
        "observed_seconds": statistics.median(observed_times),
        "ratio": middle,
        "ratio_quartiles": [low, high],
    }


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    """Measure each dtype and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--ffn", type=int, default=8960)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--text", type=int, default=512, help="text tokens of cross-attention")
    parser.add_argument("--batch", type=int, default=1, choices=(1, 2), help="2: batched CFG")
    parser.add_argument("--rows", type=int, default=256, help="sampled rows per input")
    parser.add_argument("--mean-square-tokens", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--dtype", nargs="+", choices=tuple(_DTYPES), default=["bf16", "fp32"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    results = [measure_overhead(arguments, dtype) for dtype in arguments.dtype]
    if arguments.json:
        print(
            json.dumps(
                {"settings": vars(arguments), "torch": torch.__version__, "results": results}
            )
        )
        return
    for r in results:
        low, high = r["ratio_quartiles"]
        print(
            f"{r['dtype']}: {r['plain_seconds'] * 1e3:.1f} ms plain, "
            f"{r['observed_seconds'] * 1e3:.1f} ms observed, overhead {r['ratio'] - 1:+.1%} "
            f"(quartiles {low - 1:+.1%} to {high - 1:+.1%}, {arguments.repeats} pairs)"
        )


if __name__ == "__main__":
    main()
