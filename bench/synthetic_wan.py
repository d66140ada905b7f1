"""Write a full-size WAN 2.2 TI2V 5B with random weights, for measurements without a download.

Names, shapes and dtype are those of the model. With fewer blocks, presets still recognise it. Run
``python bench/synthetic_wan.py wan.safetensors --blocks 3``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from math import prod
from pathlib import Path

import torch
from nvfp4_foundry.quant.checkpoint.writer import CheckpointWriter
from nvfp4_foundry.quant.formats import TensorSpec

WIDTH, FFN, TEXT, FREQUENCIES, LATENT, BLOCKS = 3072, 14336, 4096, 256, 48, 30

_SIGMA = 0.02
# Number of values to draw once and then slice at random offsets. Drawing all five billion values
# would take minutes.
_POOL = 1 << 24


def wan_shapes(blocks: int = BLOCKS) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter: 825 tensors, 4,999,787,712 values at full depth."""
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (WIDTH, LATENT, 1, 2, 2),
        "patch_embedding.bias": (WIDTH,),
    }
    shapes |= _linear("text_embedding.0", WIDTH, TEXT)
    shapes |= _linear("text_embedding.2", WIDTH, WIDTH)
    shapes |= _linear("time_embedding.0", WIDTH, FREQUENCIES)
    shapes |= _linear("time_embedding.2", WIDTH, WIDTH)
    shapes |= _linear("time_projection.1", 6 * WIDTH, WIDTH)
    for index in range(blocks):
        shapes |= _block(f"blocks.{index}")
    shapes["head.modulation"] = (1, 2, WIDTH)
    return shapes | _linear("head.head", LATENT * 4, WIDTH)


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _block(name: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.modulation": (1, 6, WIDTH)}
    for attention in (f"{name}.self_attn", f"{name}.cross_attn"):
        for projection in "qkvo":
            shapes |= _linear(f"{attention}.{projection}", WIDTH, WIDTH)
        shapes[f"{attention}.norm_q.weight"] = (WIDTH,)
        shapes[f"{attention}.norm_k.weight"] = (WIDTH,)
    shapes[f"{name}.norm3.weight"] = (WIDTH,)
    shapes[f"{name}.norm3.bias"] = (WIDTH,)
    return shapes | _linear(f"{name}.ffn.0", FFN, WIDTH) | _linear(f"{name}.ffn.2", WIDTH, FFN)


def write_wan(path: Path, blocks: int = BLOCKS, *, seed: int = 0, overwrite: bool = False) -> int:
    """Write the model in bf16, with about one layer in memory at a time.

    Args:
        path: the file to write.
        blocks: number of transformer blocks; 30 blocks are 10.0 GB, one is 0.32 GB.
        seed: seed of the weights, ``N(0, 0.02)`` (norms are around 1).
        overwrite: whether to replace an existing file.

    Returns:
        The size of the file in bytes.
    """
    specs = {name: TensorSpec(s, torch.bfloat16) for name, s in wan_shapes(blocks).items()}
    generator = torch.Generator().manual_seed(seed)
    pool = torch.empty(_POOL).normal_(std=_SIGMA, generator=generator).bfloat16()
    with CheckpointWriter(path, specs, {"format": "pt"}, overwrite=overwrite) as writer:
        for name, spec in specs.items():
            values = torch.cat(list(_slices(pool, prod(spec.shape), generator)))
            if ".norm" in name and name.endswith(".weight"):
                values += 1
            writer.write(name, values.view(spec.shape))
        writer.commit()
    return path.stat().st_size


def _slices(pool: torch.Tensor, count: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield pieces of the pool that start at random offsets, with ``count`` values in total."""
    while count:
        start = int(torch.randint(len(pool) // 2, (), generator=generator))
        piece = pool[start : start + count]
        count -= len(piece)
        yield piece


def main() -> None:
    """Write the file that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="the .safetensors file to write")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="transformer blocks (30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    arguments = parser.parse_args()
    size = write_wan(
        arguments.path, arguments.blocks, seed=arguments.seed, overwrite=arguments.overwrite
    )
    print(f"{arguments.path}: {len(wan_shapes(arguments.blocks))} tensors, {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
