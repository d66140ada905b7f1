"""A WAN with as many blocks as the real ones have, made from the trained blocks of the demo."""

from __future__ import annotations

import lzma
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.comfyui.comfy_server import TINY

BLOCKS = 30
#: Linear layers whose output is added to the residual stream.
_OUTPUTS = (".self_attn.o.", ".cross_attn.o.", ".ffn.2.")


def write_model(path: Path, blocks: int = BLOCKS, *, seed: int = 0) -> dict[str, tuple[int, ...]]:
    """Write a WAN in bf16 that samples to finite values; return the shapes of its tensors.

    The trained blocks are repeated and each adds less to the residual stream. Every layer gets
    a spread of its own and a few columns with outliers, so that no two layers look alike.
    """
    trained = load_file(TINY)
    count = 1 + max(int(name.split(".")[1]) for name in trained if name.startswith("blocks."))
    generator = torch.Generator().manual_seed(seed)
    made = {name: value for name, value in trained.items() if not name.startswith("blocks.")}
    for block in range(blocks):
        prefix = f"blocks.{block * count // blocks}."
        for name, value in trained.items():
            if name.startswith(prefix):
                kind = name.removeprefix(prefix)
                made[f"blocks.{block}.{kind}"] = _varied(f".{kind}", value, generator, blocks)
    made = {name: value.contiguous().clone() for name, value in made.items()}
    save_file(made, path, {"format": "pt"})
    return {name: tuple(value.shape) for name, value in made.items()}


def _varied(
    kind: str, value: torch.Tensor, generator: torch.Generator, blocks: int
) -> torch.Tensor:
    scaled = value.float()
    if any(part in kind for part in _OUTPUTS):
        scaled = scaled * 4 / blocks
    if value.dim() == 2 and kind.endswith(".weight"):
        wild = torch.rand((), generator=generator) ** 3
        columns = torch.rand(value.shape[1], generator=generator) < 0.02 * wild
        scaled = scaled * torch.where(columns, 1 + 5 * wild, torch.ones(()))
    return scaled.bfloat16()


def write_log(path: Path, shapes: dict[str, tuple[int, ...]], *, seed: int = 0) -> None:
    """Write an activation log of another tool for the model, six calls for each Linear."""
    generator = torch.Generator().manual_seed(seed)
    lines = []
    for name, shape in shapes.items():
        if name.endswith(".weight") and len(shape) == 2:
            for _ in range(6):
                amax = 0.5 + 8 * float(torch.rand((), generator=generator) ** 2)
                lines.append(
                    f"nvfp4\tdynamic\t{name.removesuffix('.weight')}\t{amax / 2688:.6f}"
                    f"\t{amax:.6f}\t(40, {shape[1]})"
                )
    path.write_bytes(lzma.compress("\n".join(lines).encode()))
