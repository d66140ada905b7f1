"""Measure the pack on a GPU: speed, the same bits as on the CPU, waits of the host, memory.

Prints one Markdown table. It is what `docs/performance.md` could not have, because the pack was
developed without a GPU: please send it with the name of your GPU. Run ``python bench/on_cuda.py``;
without CUDA it says so and ends with code 2. ``--device cpu`` tries the bench itself, and
``--size 512`` makes the weights small. (A file
``cuda.py`` in this folder would hide the package ``cuda`` that torch imports.)
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from calibration_overhead import measure_overhead
from nvfp4_foundry.quant.formats import FORMATS
from nvfp4_foundry.quant.hardware.transfers import Transfers
from nvfp4_foundry.quant.rounding import SecondMoments, get_rounding

# A layer of WAN 14B, in units of --size.
_ROWS, _COLUMNS = 13824 / 5120, 1
_REPEATS = 5
_ROUNDINGS = ("max", "mse", "weighted", "gptq", "gptaq")


@dataclass(frozen=True)
class Row:
    """One line of the table; None: not measured."""

    what: str
    seconds: float
    gigabytes_per_second: float | None = None
    same_bits: bool | None = None
    waits: int | None = None
    peak_bytes: int | None = None

    def cells(self) -> list[str]:
        """Return the texts of the line."""
        return [
            self.what,
            f"{self.seconds * 1e3:.1f}",
            _text(self.gigabytes_per_second, "{:.2f}"),
            "" if self.same_bits is None else "yes" if self.same_bits else "NO",
            _text(self.waits, "{}"),
            "" if self.peak_bytes is None else f"{self.peak_bytes / 1e6:.0f}",
        ]


class Device:
    """The device that is measured."""

    def __init__(self, name: str) -> None:
        self.device = torch.device(name)
        self.is_gpu = self.device.type == "cuda"

    def seconds(self, step: Callable[[], object], repeats: int = _REPEATS) -> float:
        """Return the median time of a step, after one more that is not timed."""
        step()
        times = []
        for _ in range(repeats):
            self.wait()
            began = time.perf_counter()
            step()
            self.wait()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    def wait(self) -> None:
        """Wait until the device has nothing to do."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def waits(self, step: Callable[[], object]) -> int | None:
        """Count how often the host waits for the device in a step."""
        if not self.is_gpu:
            return None
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(warning.message) for warning in caught)

    def peak(self, step: Callable[[], object]) -> int | None:
        """Return the memory that a step takes besides what is there before, in bytes."""
        if not self.is_gpu:
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        step()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device) - before


def measure_encodings(on: Device, size: int) -> list[Row]:
    """Encode a layer of WAN 14B in each format with each rounding."""
    rows, columns = int(_ROWS * size), _COLUMNS * size
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(rows, columns, generator=generator) * 0.02).bfloat16()
    tokens = torch.randn(2048, columns, generator=generator)
    moments = _moments(tokens)
    there = weight.to(on.device)
    found = []
    for name, fmt in FORMATS.items():
        if not fmt.is_quantized:
            continue
        for rounding in _ROUNDINGS if fmt.has_scale_choice else ("max",):
            is_slow = rounding.startswith("gpt")
            if is_slow and fmt.feedback_block is None:
                continue

            # a rule keeps factors on its device, so each device needs its own
            rules = [
                get_rounding(rounding).for_input(tokens.square().mean(0), moments) for _ in range(2)
            ]
            encode = partial(fmt.encode, there, rules[0], measure_error=True)
            seconds = on.seconds(encode, 1 if is_slow else _REPEATS)
            some = slice(0, min(rows, 256))  # a part, because the CPU is slow
            part = fmt.encode(there[some], rules[0]).tensors
            expected = fmt.encode(weight[some], rules[1]).tensors
            found.append(
                Row(
                    f"{name}, {rounding}",
                    seconds,
                    weight.nbytes / seconds / 1e9,
                    all(_same(part[key], value) for key, value in expected.items()),
                    on.waits(encode),
                    on.peak(encode),
                )
            )
    return found


def measure_emulation(on: Device, size: int) -> list[Row]:
    """Round activations as native hardware does; the host must not wait."""
    x = torch.randn(4096, size, generator=torch.Generator().manual_seed(0)).bfloat16()
    there, found = x.to(on.device), []
    for name, fmt in FORMATS.items():
        if not fmt.rounds_activations:
            continue

        emulate = partial(fmt.emulate_activations, there, None, there.dtype)
        seconds = on.seconds(emulate)
        same = _same(emulate(), fmt.emulate_activations(x, None, x.dtype))
        found.append(
            Row(
                f"emulation of {name}",
                seconds,
                x.nbytes / seconds / 1e9,
                same,
                on.waits(emulate),
                on.peak(emulate),
            )
        )
    return found


def measure_transfers(on: Device, size: int) -> list[Row]:
    """Copy a layer to the device and back, from ordinary memory and through pinned buffers."""
    weight = torch.zeros(int(_ROWS * size), size, dtype=torch.bfloat16)
    there, through = weight.to(on.device), Transfers(on.device)

    def upload() -> torch.Tensor:
        return through.arrived(through.upload(weight))

    def download() -> list[tuple[str, torch.Tensor]]:
        return list(through.download(through.computed({"": there})))

    steps: dict[str, Callable[[], object]] = {
        "to the device, ordinary": lambda: weight.to(on.device),
        "to the device, pinned buffers": upload,
        "to the host, ordinary": there.cpu,
        "to the host, pinned buffers": download,
    }
    return [
        Row(what, seconds, weight.nbytes / seconds / 1e9)
        for what, seconds in ((what, on.seconds(step)) for what, step in steps.items())
    ]


def measure_calibration(on: Device, size: int) -> list[Row]:
    """Time a block of WAN with and without the collector."""
    settings = argparse.Namespace(
        device=str(on.device),
        width=max(128, size * 3072 // 5120 // 128 * 128),
        ffn=max(256, size * 14336 // 5120 // 128 * 128),
        batch=1,
        tokens=4096 if on.is_gpu else 64,
        text=512 if on.is_gpu else 16,
        rows=256,
        mean_square_tokens=1024,
        repeats=20 if on.is_gpu else 3,
    )
    found = measure_overhead(settings, "bf16")
    ratio = found["ratio"]
    return [Row(f"calibration: {ratio - 1:+.1%} of a block's time", found["plain_seconds"])]


def _moments(tokens: torch.Tensor) -> SecondMoments:
    rounded = FORMATS["nvfp4"].emulate_activations(tokens, None)
    error = tokens - rounded
    return SecondMoments(
        hessian=rounded.T @ rounded / len(tokens),
        residual=error.T @ rounded / len(tokens),
        residual_energy=error.square().mean(0),
        mean=tokens.mean(0),
        mean_rounded=rounded.mean(0),
        tokens=len(tokens),
    )


def _same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    a, b = (t.cpu().contiguous().view(-1).view(torch.uint8) for t in (found, expected))
    return torch.equal(a, b)


def _text(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def main() -> int:
    """Print the table; 2 without CUDA."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cpu: only to try the bench")
    parser.add_argument("--size", type=int, default=5120, help="width of the layers, default 5120")
    options = parser.parse_args()
    on = Device(options.device)
    if on.is_gpu and not torch.cuda.is_available():
        print("this torch finds no CUDA device, so there is nothing to measure", file=sys.stderr)
        return 2
    with torch.no_grad():
        rows = [
            *measure_encodings(on, options.size),
            *measure_emulation(on, options.size),
            *measure_transfers(on, options.size),
            *measure_calibration(on, options.size),
        ]
    name = torch.cuda.get_device_name(on.device) if on.is_gpu else "CPU, only a try"
    print(f"{name}, torch {torch.__version__}, width {options.size}\n")
    heads = ["", "ms", "GB/s of source", "bits of the CPU", "waits", "peak MB"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(row.cells())} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
