"""Measure the peak memory of a conversion by the kind and size of its source.

The peak should not grow with the size. Writes random WAN models with the width of TI2V 5B as
safetensors, with the names of diffusers, quantized by other tools, and as GGUF. ``sparse`` is a
safetensors file of zeros for sizes that the disk has no room for. The size gives the
number of blocks. Converts each in a separate process, and deletes it. The peak is the largest
resident set of the process, as counted by the kernel. Run
``python bench/source_memory.py --sizes 1 5 20 --folder FOLDER``. With ``--blocks 30``, every kind
holds the same model, so that the times can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import gguf
import numpy as np
import torch
from nvfp4_foundry.quant.checkpoint.writer import CheckpointWriter
from nvfp4_foundry.quant.formats import TensorSpec
from nvfp4_foundry.quant.sources.wan_names import wan_to_diffusers
from nvfp4_foundry.quant.text import text_table
from synthetic_wan import wan_shapes

QUANTIZE = (sys.executable, "-m", "nvfp4_foundry.quant.cli", "quantize")
OPTIONS = ("--preset", "all", "--device", "cpu", "--rounding")
_POOL = 1 << 22
_SIGMA = 0.02
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """One conversion: kind of source, bytes, peak resident bytes, wall and processor seconds."""

    kind: str
    source_bytes: int
    output_bytes: int
    peak_bytes: int
    seconds: float
    cpu_seconds: float


def write_safetensors(
    path: Path, shapes: dict[str, Shape], rename: Callable[[str], str] = str
) -> None:
    """Write a model in bf16, with one layer in memory at a time."""
    values = torch.empty(_POOL).normal_(std=_SIGMA).bfloat16()
    _write_tensors(path, {rename(name): (shape, values) for name, shape in shapes.items()})


def write_sparse(path: Path, shapes: dict[str, Shape]) -> None:
    """Write a model in bf16 as a sparse file of zeros, which takes no room on the disk."""
    offset, header = 0, {}
    for name, shape in shapes.items():
        stop = offset + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)


def write_diffusers(path: Path, shapes: dict[str, Shape]) -> None:
    """Write a model in bf16 with the names of diffusers."""
    write_safetensors(path, shapes, wan_to_diffusers)


def write_scaled_fp8(path: Path, shapes: dict[str, Shape]) -> None:
    """Write a model with 2-D weights in float8 with scales, as in ``scaled_fp8`` files."""
    plain = torch.empty(_POOL).normal_(std=_SIGMA).bfloat16()
    codes = (plain.float() * 4000).to(torch.float8_e4m3fn)
    tensors: dict[str, tuple[Shape, torch.Tensor]] = {"scaled_fp8": ((0,), codes)}
    for name, shape in shapes.items():
        is_matrix = len(shape) == 2 and name.endswith(".weight")
        tensors[name] = (shape, codes if is_matrix else plain)
        if is_matrix:
            scale = torch.full((1,), 1 / 4000)
            tensors[f"{name.removesuffix('.weight')}.scale_weight"] = ((), scale)
    _write_tensors(path, tensors)


def write_modelopt(path: Path, shapes: dict[str, Shape]) -> None:
    """Write a model with 2-D weights in NVFP4 as packed by ModelOpt."""
    plain = torch.empty(_POOL).normal_(std=_SIGMA).bfloat16()
    codes = torch.randint(0, 256, (_POOL,), dtype=torch.uint8)
    scales = (torch.rand(_POOL) * 200 + 20).to(torch.float8_e4m3fn)
    tensors: dict[str, tuple[Shape, torch.Tensor]] = {}
    for name, shape in shapes.items():
        layer = name.removesuffix(".weight")
        if len(shape) != 2 or layer == name:
            tensors[name] = (shape, plain)
            continue
        tensors[name] = ((shape[0], shape[1] // 2), codes)
        tensors[f"{layer}.weight_scale"] = ((shape[0], shape[1] // 16), scales)
        tensors[f"{layer}.weight_scale_2"] = ((), torch.full((1,), _SIGMA / 300))
    _write_tensors(path, tensors)


def _write_tensors(path: Path, tensors: dict[str, tuple[Shape, torch.Tensor]]) -> None:
    """Write tensors of these shapes, filled by repeating the given values."""
    specs = {name: TensorSpec(shape, values.dtype) for name, (shape, values) in tensors.items()}
    with CheckpointWriter(path, specs, {"format": "pt"}) as writer:
        for name, (shape, values) in tensors.items():
            count = prod(shape)
            repeated = values.view(torch.uint8 if values.dtype.itemsize == 1 else values.dtype)
            repeated = repeated.repeat(-(-count // len(values)))[:count]
            writer.write(name, repeated.view(values.dtype).view(shape))
        writer.commit()


def write_q8(path: Path, shapes: dict[str, Shape]) -> None:
    """Write a GGUF whose 2-D weights are Q8_0."""
    blocks = np.random.default_rng(0).integers(0, 256, (_POOL // 32, 34), dtype=np.uint8)
    blocks[:, :2] = np.frombuffer(np.float16(_SIGMA / 64).tobytes(), dtype=np.uint8)
    _write_gguf(path, shapes, "Q8_0", blocks)


def write_q4_k(path: Path, shapes: dict[str, Shape]) -> None:
    """Write a GGUF whose 2-D weights are Q4_K."""
    blocks = np.random.default_rng(0).integers(0, 256, (_POOL // 256, 144), dtype=np.uint8)
    scale = np.frombuffer(np.float16(_SIGMA / 512).tobytes(), dtype=np.uint8)
    blocks[:, :2] = blocks[:, 2:4] = scale
    _write_gguf(path, shapes, "Q4_K", blocks)


def _write_gguf(path: Path, shapes: dict[str, Shape], kind: str, blocks: np.ndarray) -> None:
    """Write a GGUF tensor by tensor. 2-D weights repeat some blocks, and the rest is F32."""
    quantized = gguf.GGMLQuantizationType[kind]
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[quantized]
    writer = gguf.GGUFWriter(path, "wan")
    for name, shape in shapes.items():
        if len(shape) > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(shape))
        stored = (shape[0], prod(shape[1:])) if len(shape) > 4 else shape
        if len(shape) == 2:
            packed = (shape[0], shape[1] // block_size * block_bytes)
            writer.add_tensor_info(name, packed, np.dtype(np.uint8), prod(packed), quantized)
        else:
            writer.add_tensor_info(name, stored, np.dtype(np.float32), 4 * prod(stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for shape in shapes.values():
        if len(shape) == 2:
            writer.write_tensor_data(
                np.resize(blocks.reshape(-1), prod(shape) // block_size * block_bytes)
            )
        else:
            writer.write_tensor_data(np.full(prod(shape), _SIGMA, dtype=np.float32))
    writer.close()


KINDS: dict[str, tuple[Callable[[Path, dict[str, Shape]], None], str, float]] = {
    "safetensors": (write_safetensors, ".safetensors", 2.0),
    "sparse": (write_sparse, ".safetensors", 2.0),
    "diffusers": (write_diffusers, ".safetensors", 2.0),
    "scaled-fp8": (write_scaled_fp8, ".safetensors", 1.0),
    "modelopt": (write_modelopt, ".safetensors", 0.5625),
    "gguf-q8_0": (write_q8, ".gguf", 34 / 32),
    "gguf-q4_k": (write_q4_k, ".gguf", 144 / 256),
}


def shapes_of_size(size: float, bytes_per_value: float) -> dict[str, Shape]:
    """Return the shapes of a model of about ``size`` bytes."""
    empty, one = (sum(prod(s) for s in wan_shapes(n).values()) for n in (0, 1))
    return wan_shapes(max(1, round((size / bytes_per_value - empty) / (one - empty))))


def measure(kind: str, shapes: dict[str, Shape], rounding: str, folder: Path) -> Measured:
    """Write a source, convert it, and delete both files."""
    write, suffix, _ = KINDS[kind]
    source, target = folder / f"source{suffix}", folder / "target.safetensors"
    try:
        write(source, shapes)
        start = time.perf_counter()
        process = subprocess.Popen(
            [*QUANTIZE, str(source), str(target), *OPTIONS, rounding], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"quantizing {kind} failed")
        unit = 1 if sys.platform == "darwin" else 1024
        return Measured(
            kind=kind,
            source_bytes=source.stat().st_size,
            output_bytes=target.stat().st_size,
            peak_bytes=usage.ru_maxrss * unit,
            seconds=time.perf_counter() - start,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
        )
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)


def models(options: argparse.Namespace, bytes_per_value: float) -> list[dict[str, Shape]]:
    """Return the shapes of the models to convert."""
    if options.blocks:
        return [wan_shapes(options.blocks)]
    return [shapes_of_size(size * 1e9, bytes_per_value) for size in options.sizes]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="folder for the large files (a temporary one)")
    parser.add_argument("--sizes", type=float, nargs="+", default=[1, 5, 20], help="source GB")
    parser.add_argument("--blocks", type=int, help="the same model in every kind, not by size")
    parser.add_argument("--rounding", default="max", help="rounding of the conversion (max)")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nvfp4-bench-", dir=options.folder) as folder:
        results = [
            measure(kind, shapes, options.rounding, Path(folder))
            for kind in options.kinds
            for shapes in models(options, KINDS[kind][2])
        ]
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
        return
    rows = [
        (
            r.kind,
            f"{r.source_bytes / 1e9:.2f}",
            f"{r.output_bytes / 1e9:.2f}",
            f"{r.peak_bytes / 1e9:.2f}",
            f"{r.seconds:.1f}",
            f"{r.cpu_seconds:.1f}",
        )
        for r in results
    ]
    print(text_table(("source", "GB", "output GB", "peak GB", "s", "cpu s"), rows))


if __name__ == "__main__":
    main()
