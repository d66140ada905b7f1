"""A WAN 2.1 text-to-video transformer in plain torch, small enough to sample in seconds on a CPU.

It has the parameter names and the arithmetic of WAN 2.1 (https://github.com/Wan-Video/Wan2.1), so
ComfyUI loads the same file. Every 2-D weight belongs to a plain ``nn.Linear``, so forward hooks and
replaced modules work as on a full-size model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..quant.errors import SourceError

MODEL_PATH = Path(__file__).with_name("tiny_wan.safetensors")

HEAD_DIM = 128
PATCH = (1, 2, 2)
NORM_EPS = 1e-6
ROPE_THETA = 10000.0


@dataclass(frozen=True)
class WanDimensions:
    """The sizes of a WAN text-to-video model."""

    in_channels: int = 16
    out_channels: int = 16
    width: int = 256
    ffn: int = 512
    blocks: int = 4
    text: int = 4096
    frequency: int = 256

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> WanDimensions:
        """Return the sizes, read from the shapes of tensors.

        Raises:
            SourceError: a tensor is missing, or the width is not a multiple of the head size.
        """
        try:
            width, in_channels = state_dict["patch_embedding.weight"].shape[:2]
            patch_outputs = state_dict["head.head.weight"].shape[0]
            ffn = state_dict["blocks.0.ffn.0.weight"].shape[0]
            text = state_dict["text_embedding.0.weight"].shape[1]
            frequency = state_dict["time_embedding.0.weight"].shape[1]
        except KeyError as missing:
            raise SourceError(
                f"the file is not a WAN text-to-video model: it has no tensor {missing}"
            ) from missing
        if width % HEAD_DIM:
            raise SourceError(f"WAN width {width} is not a multiple of the head size {HEAD_DIM}")
        numbers = {int(m[1]) for m in (re.match(r"blocks\.(\d+)\.", k) for k in state_dict) if m}
        return cls(
            in_channels=in_channels,
            out_channels=patch_outputs // (PATCH[0] * PATCH[1] * PATCH[2]),
            width=width,
            ffn=ffn,
            blocks=max(numbers) + 1,
            text=text,
            frequency=frequency,
        )


def timestep_features(timestep: Tensor, size: int) -> Tensor:
    """Return sinusoidal features of the time: cosines, then sines, of a geometric series.

    Args:
        timestep: [B], 0 to 1000.
        size: number of features, even.

    Returns:
        float32 [B, size].
    """
    half = size // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timestep.device) / half
    angles = timestep.float()[:, None] * torch.pow(10000.0, -exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rope_rotations(grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """Return rotary position angles as complex numbers of length 1, for each axis in turn.

    Height and width get ``2 * (HEAD_DIM // 6)`` channels each, and time gets the rest.

    Args:
        grid: frames, rows and columns in patches.
        device: the device of the result.

    Returns:
        complex64 [tokens, HEAD_DIM / 2].
    """
    spatial = 2 * (HEAD_DIM // 6)
    channels_per_axis = (HEAD_DIM - 2 * spatial, spatial, spatial)
    axes = [torch.arange(n, dtype=torch.float64, device=device) for n in grid]
    positions = torch.cartesian_prod(*axes)
    angles = []
    for axis, channels in enumerate(channels_per_axis):
        exponents = torch.arange(0, channels, 2, dtype=torch.float64, device=device) / channels
        angles.append(positions[:, axis, None] * ROPE_THETA**-exponents)
    theta = torch.cat(angles, dim=-1)
    return torch.polar(torch.ones_like(theta), theta).to(torch.complex64)


def rotate(heads: Tensor, rotations: Tensor) -> Tensor:
    """Rotate pairs of adjacent channels of ``heads`` [B, H, L, 128] by ``rotations`` [L, 64]."""
    pairs = torch.view_as_complex(heads.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotations).flatten(-2).to(heads.dtype)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply a layer norm without weights, then scale and shift; all are [B, L or 1, width]."""
    return nn.functional.layer_norm(x, x.shape[-1:], eps=NORM_EPS) * (1 + scale) + shift


class Attention(nn.Module):
    """Multi-head attention with an RMS norm over the full width of queries and keys."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, width)
        self.norm_q = nn.RMSNorm(width, eps=NORM_EPS)
        self.norm_k = nn.RMSNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor, source: Tensor, rotations: Tensor | None = None) -> Tensor:
        """Let ``x`` [B, L, width] attend to ``source`` [B, S, width], with positions if given."""
        q = self._split_heads(self.norm_q(self.q(x)))
        k = self._split_heads(self.norm_k(self.k(source)))
        v = self._split_heads(self.v(source))
        if rotations is not None:
            q, k = rotate(q, rotations), rotate(k, rotations)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.o(attended.transpose(1, 2).flatten(2))

    @staticmethod
    def _split_heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)


class Block(nn.Module):
    """Self-attention, cross-attention to the text, and feed-forward.

    The time modulates the first and the last.
    """

    def __init__(self, width: int, ffn: int) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.randn(1, 6, width) / width**0.5)
        self.self_attn = Attention(width)
        self.norm3 = nn.LayerNorm(width, eps=NORM_EPS)
        self.cross_attn = Attention(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, ffn), nn.GELU(approximate="tanh"), nn.Linear(ffn, width)
        )

    def forward(self, x: Tensor, time: Tensor, text: Tensor, rotations: Tensor) -> Tensor:
        """Advance ``x`` [B, L, width] given ``time`` [B, 6, width] and ``text`` [B, S, width]."""
        steering = (self.modulation + time).chunk(6, dim=1)
        shift_attn, scale_attn, gate_attn, shift_ffn, scale_ffn, gate_ffn = steering
        normed = modulate(x, shift_attn, scale_attn)
        x = x + gate_attn * self.self_attn(normed, normed, rotations)
        x = x + self.cross_attn(self.norm3(x), text)
        return x + gate_ffn * self.ffn(modulate(x, shift_ffn, scale_ffn))


class Head(nn.Module):
    """Last norm and projection from tokens to patches of the velocity."""

    def __init__(self, width: int, patch_outputs: int) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.randn(1, 2, width) / width**0.5)
        self.head = nn.Linear(width, patch_outputs)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map ``x`` [B, L, width] and ``time`` [B, 1, width] to [B, L, patch_outputs]."""
        shift, scale = (self.modulation + time).chunk(2, dim=1)
        return self.head(modulate(x, shift, scale))


class TinyWan(nn.Module):
    """WAN 2.1 text-to-video: predicts the flow velocity ``noise - clean`` of a noisy latent."""

    def __init__(self, dimensions: WanDimensions | None = None) -> None:
        super().__init__()
        size = dimensions or WanDimensions()
        width = size.width
        self.dimensions = size
        self.patch_embedding = nn.Conv3d(size.in_channels, width, kernel_size=PATCH, stride=PATCH)
        self.text_embedding = nn.Sequential(
            nn.Linear(size.text, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(size.frequency, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(width, size.ffn) for _ in range(size.blocks))
        self.head = Head(width, size.out_channels * PATCH[0] * PATCH[1] * PATCH[2])

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
    ) -> TinyWan:
        """Build the model that ``state_dict`` describes, in evaluation mode.

        Args:
            state_dict: tensors with WAN's own names, without a prefix.
            dtype: compute dtype. The patch embedding stays float32, as in ComfyUI.

        Raises:
            SourceError: the names or shapes do not fit a WAN text-to-video model.
        """
        # Parameters on the meta device take no memory, and loading replaces them.
        with torch.device("meta"):
            model = cls(WanDimensions.from_state_dict(state_dict))
        converted = {
            name: tensor.to(torch.float32 if name.startswith("patch_embedding.") else dtype)
            for name, tensor in state_dict.items()
        }
        try:
            model.load_state_dict(converted, assign=True)
        except RuntimeError as mismatch:
            raise SourceError(
                f"the file is not a WAN text-to-video model: {mismatch}"
            ) from mismatch
        return model.eval()

    @property
    def dtype(self) -> torch.dtype:
        """Compute dtype, taken from a parameter that no format quantizes."""
        return self.head.modulation.dtype

    @property
    def device(self) -> torch.device:
        """The device on which the model computes."""
        return self.head.modulation.device

    def forward(self, latent: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        """Predict the velocity ``noise - clean``.

        Args:
            latent: [B, C, F, H, W], with even H and W; cast to the compute dtype.
            timestep: [B], sigma * 1000.
            context: [B, S, text], the text embedding; cast to the compute dtype.

        Returns:
            [B, out_channels, F, H, W] in the compute dtype.

        Raises:
            ValueError: H or W is odd.
        """
        if latent.shape[-2] % PATCH[1] or latent.shape[-1] % PATCH[2]:
            raise ValueError(f"latent height and width must be even, got {tuple(latent.shape)}")
        patches = self.patch_embedding(latent.to(self.dtype).float()).to(self.dtype)
        frames, rows, columns = patches.shape[2:]
        x = patches.flatten(2).transpose(1, 2)

        features = timestep_features(timestep, self.dimensions.frequency).to(self.dtype)
        time = self.time_embedding(features)
        block_time = self.time_projection(time).unflatten(-1, (6, -1))
        text = self.text_embedding(context.to(self.dtype))
        rotations = rope_rotations((frames, rows, columns), latent.device)
        for block in self.blocks:
            x = block(x, block_time, text, rotations)
        velocity = self.head(x, time[:, None])

        grid = velocity.unflatten(1, (frames, rows, columns)).unflatten(-1, (*PATCH[1:], -1))
        return grid.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def load_model(path: str | Path | None = None, dtype: torch.dtype = torch.float32) -> TinyWan:
    """Load a WAN text-to-video model from a file, by default the trained demo model.

    Args:
        path: a safetensors file that is not quantized; None for ``demo/tiny_wan.safetensors``.
        dtype: compute dtype.

    Raises:
        SourceError: the file is missing, or is not such a model.
    """
    file = Path(path) if path is not None else MODEL_PATH
    if not file.is_file():
        raise SourceError(f"{file} does not exist")
    return TinyWan.from_state_dict(load_file(file), dtype)
