"""A small Flux.1 in plain torch: two streams that attend jointly, then one stream of both.

It has the names and the arithmetic of Flux.1's schnell (https://github.com/black-forest-labs/flux),
with fewer and smaller layers. ``train_tiny_flux.py`` trains it on ``picture_patches.py``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from nvfp4_foundry.demo.model import rotate, timestep_features
from safetensors.torch import load_file
from torch import Tensor, nn

MODEL_PATH = Path(__file__).with_name("tiny_flux.safetensors")

WIDTH, HEADS = 256, 4
DOUBLE_BLOCKS, SINGLE_BLOCKS = 3, 4
CHANNELS = 48  # 4x4 pixels of three colours
TEXT, POOLED, FREQUENCIES = 512, 256, 256
GRID = 8  # patches on each side of an image
AXES = (8, 28, 28)  # channels of a head that turn with the index, the row and the column
ROPE_THETA = 10000.0
NORM_EPS = 1e-6


def rotations(text_tokens: int) -> Tensor:
    """Return rotary position angles as complex64 [text_tokens + 64, 32]; text is at the origin."""
    rows, columns = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    image = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1)
    positions = torch.cat([torch.zeros(text_tokens, len(AXES)), image]).double()
    angles = [
        positions[:, axis, None] * ROPE_THETA ** -(torch.arange(0, size, 2).double() / size)
        for axis, size in enumerate(AXES)
    ]
    theta = torch.cat(angles, dim=-1)
    return torch.polar(torch.ones_like(theta), theta).to(torch.complex64)


def normed_heads(qkv: Tensor, norm: QueryKeyNorm) -> tuple[Tensor, Tensor, Tensor]:
    """Split fused q, k, v [B, L, 3W] into heads [B, H, L, W / H]; q and k are normalised."""
    q, k, v = qkv.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    return norm.query_norm(q), norm.key_norm(k), v


def joint_attention(streams: list[tuple[Tensor, Tensor, Tensor]], turned: Tensor) -> Tensor:
    """Let all tokens of all streams attend to each other, in this order."""
    q, k, v = (torch.cat(parts, dim=2) for parts in zip(*streams, strict=True))
    q, k = rotate(q, turned).to(v.dtype), rotate(k, turned).to(v.dtype)
    return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def layer_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply a layer norm without weights, then scale and shift [B, 1, WIDTH]."""
    return nn.functional.layer_norm(x, x.shape[-1:], eps=NORM_EPS) * (1 + scale) + shift


class Scale(nn.Module):
    """An RMS norm over the channels of a head, with Flux's name for its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(WIDTH // HEADS))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[B, H, L, WIDTH / H]``."""
        return nn.functional.rms_norm(x, x.shape[-1:], self.scale.to(x.dtype), NORM_EPS)


class QueryKeyNorm(nn.Module):
    """The norms of queries and keys."""

    def __init__(self) -> None:
        super().__init__()
        self.query_norm, self.key_norm = Scale(), Scale()


class SelfAttention(nn.Module):
    """The layers that one stream has for the joint attention."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.norm = QueryKeyNorm()
        self.proj = nn.Linear(WIDTH, WIDTH)


class Embedder(nn.Module):
    """Two layers that embed the time or the pooled text."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(features, WIDTH)
        self.out_layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, features]`` to ``[B, WIDTH]``."""
        return self.out_layer(nn.functional.silu(self.in_layer(x)))


class Modulation(nn.Module):
    """Shifts, scales and gates from the embedding of time and text."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.lin = nn.Linear(WIDTH, parts * WIDTH)

    def forward(self, vector: Tensor) -> tuple[Tensor, ...]:
        """Map ``[B, WIDTH]`` to as many ``[B, 1, WIDTH]`` as there are parts."""
        return self.lin(nn.functional.silu(vector))[:, None].chunk(self.parts, dim=-1)


def feed_forward() -> nn.Sequential:
    """Return a feed-forward of four times the width."""
    return nn.Sequential(
        nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(approximate="tanh"), nn.Linear(4 * WIDTH, WIDTH)
    )


class DoubleBlock(nn.Module):
    """Joint attention of both streams, then a feed-forward in each."""

    def __init__(self) -> None:
        super().__init__()
        self.img_mod, self.txt_mod = Modulation(6), Modulation(6)
        self.img_attn, self.txt_attn = SelfAttention(), SelfAttention()
        self.img_mlp, self.txt_mlp = feed_forward(), feed_forward()

    def forward(
        self, image: Tensor, text: Tensor, vector: Tensor, turned: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advance image ``[B, L, WIDTH]`` and text ``[B, S, WIDTH]``."""
        i, t = self.img_mod(vector), self.txt_mod(vector)
        of_text = self.txt_attn.qkv(layer_norm(text, t[0], t[1]))
        of_image = self.img_attn.qkv(layer_norm(image, i[0], i[1]))
        streams = [
            normed_heads(of_text, self.txt_attn.norm),
            normed_heads(of_image, self.img_attn.norm),
        ]
        both = joint_attention(streams, turned)
        from_text, from_image = both.split([text.shape[1], image.shape[1]], dim=1)
        image = image + i[2] * self.img_attn.proj(from_image)
        image = image + i[5] * self.img_mlp(layer_norm(image, i[3], i[4]))
        text = text + t[2] * self.txt_attn.proj(from_text)
        return image, text + t[5] * self.txt_mlp(layer_norm(text, t[3], t[4]))


class SingleBlock(nn.Module):
    """Attention and feed-forward beside each other, for all tokens of both streams."""

    def __init__(self) -> None:
        super().__init__()
        self.modulation = Modulation(3)
        self.linear1 = nn.Linear(WIDTH, 7 * WIDTH)
        self.norm = QueryKeyNorm()
        self.linear2 = nn.Linear(5 * WIDTH, WIDTH)

    def forward(self, x: Tensor, vector: Tensor, turned: Tensor) -> Tensor:
        """Advance text and image together, ``[B, S + L, WIDTH]``."""
        shift, scale, gate = self.modulation(vector)
        qkv, hidden = self.linear1(layer_norm(x, shift, scale)).split([3 * WIDTH, 4 * WIDTH], -1)
        attended = joint_attention([normed_heads(qkv, self.norm)], turned)
        hidden = nn.functional.gelu(hidden, approximate="tanh")
        return x + gate * self.linear2(torch.cat([attended, hidden], dim=-1))


class FinalLayer(nn.Module):
    """Last norm and projection to patches of the velocity."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, CHANNELS)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 2 * WIDTH))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Map ``[B, L, WIDTH]`` to ``[B, L, CHANNELS]``."""
        shift, scale = self.adaLN_modulation(vector)[:, None].chunk(2, dim=-1)
        return self.linear(layer_norm(x, shift, scale))


class TinyFlux(nn.Module):
    """Predicts the flow velocity ``noise - clean`` of a noisy image in patches."""

    def __init__(self) -> None:
        super().__init__()
        self.img_in = nn.Linear(CHANNELS, WIDTH)
        self.txt_in = nn.Linear(TEXT, WIDTH)
        self.time_in = Embedder(FREQUENCIES)
        self.vector_in = Embedder(POOLED)
        self.double_blocks = nn.ModuleList(DoubleBlock() for _ in range(DOUBLE_BLOCKS))
        self.single_blocks = nn.ModuleList(SingleBlock() for _ in range(SINGLE_BLOCKS))
        self.final_layer = FinalLayer()

    def forward(self, image: Tensor, sigma: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        """Predict the velocity.

        Args:
            image: [B, 64, CHANNELS], the patches row by row.
            sigma: [B], 1 (noise) to 0.
            text: [B, S, TEXT], a token for each word.
            pooled: [B, POOLED], the vector of the whole text.

        Returns:
            [B, 64, CHANNELS].
        """
        vector = self.time_in(timestep_features(sigma * 1000, FREQUENCIES))
        vector = vector + self.vector_in(pooled)
        turned = rotations(text.shape[1]).to(image.device)
        x, y = self.img_in(image), self.txt_in(text)
        for block in self.double_blocks:
            x, y = block(x, y, vector, turned)
        both = torch.cat([y, x], dim=1)
        for block in self.single_blocks:
            both = block(both, vector, turned)
        return self.final_layer(both[:, text.shape[1] :], vector)


def new_model(seed: int = 0) -> TinyFlux:
    """Return an untrained model. Its last layer and all gates start at zero, as is usual."""
    torch.manual_seed(seed)
    model = TinyFlux()
    for name, parameter in model.named_parameters():
        starts_at_zero = "mod" in name or name.startswith("final_layer.linear")
        if starts_at_zero or name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


def load_model(path: Path = MODEL_PATH) -> TinyFlux:
    """Load a trained model in float32, in evaluation mode."""
    model = TinyFlux()
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return model.eval()
