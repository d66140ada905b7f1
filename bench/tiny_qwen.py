"""A small random transformer with Qwen-Image's layer names and two streams that attend jointly.

It shows how quantized layers change a model's output if there are no trained weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, HEADS, CHANNELS, TEXT = 256, 4, 64, 128


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply a layer norm without weights, then scale and shift."""
    return nn.functional.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


class Projected(nn.Module):
    """A Linear layer named ``proj``, and a GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(WIDTH, 4 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, L, WIDTH]`` to ``[B, L, 4 * WIDTH]``."""
        return nn.functional.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """A feed-forward with the names of diffusers: ``net.0.proj``, GELU, ``net.2``."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(Projected(), nn.Identity(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, L, WIDTH]`` to itself."""
        return self.net(x)


class JointAttention(nn.Module):
    """Attention of image and text tokens to all tokens of both."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"):
            self.add_module(name, nn.Linear(WIDTH, WIDTH))
        self.to_out = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])
        self.to_add_out = nn.Linear(WIDTH, WIDTH)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attention output of both streams."""
        pairs = (("to_q", "add_q_proj"), ("to_k", "add_k_proj"), ("to_v", "add_v_proj"))
        q, k, v = (
            torch.cat([getattr(self, a)(image), getattr(self, b)(text)], dim=1)
            .unflatten(-1, (HEADS, -1))
            .transpose(1, 2)
            for a, b in pairs
        )
        joint = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        from_image, from_text = joint.split([image.shape[1], text.shape[1]], dim=1)
        return self.to_out[0](from_image), self.to_add_out(from_text)


class Block(nn.Module):
    """One block of both streams, modulated by the time."""

    def __init__(self) -> None:
        super().__init__()
        self.img_mod = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))
        self.txt_mod = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))
        self.attn = JointAttention()
        self.img_mlp = FeedForward()
        self.txt_mlp = FeedForward()

    def forward(self, image: Tensor, text: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Advance both streams."""
        a = self.img_mod(time).unsqueeze(1).chunk(6, dim=-1)
        b = self.txt_mod(time).unsqueeze(1).chunk(6, dim=-1)
        from_image, from_text = self.attn(modulate(image, a[0], a[1]), modulate(text, b[0], b[1]))
        image, text = image + a[2] * from_image, text + b[2] * from_text
        image = image + a[5] * self.img_mlp(modulate(image, a[3], a[4]))
        return image, text + b[5] * self.txt_mlp(modulate(text, b[3], b[4]))


class TinyQwen(nn.Module):
    """Predicts a velocity for image tokens ``[B, L, 64]`` given text ``[B, S, 128]`` and a time."""

    def __init__(self, blocks: int = 6) -> None:
        super().__init__()
        self.img_in = nn.Linear(CHANNELS, WIDTH)
        self.txt_in = nn.Linear(TEXT, WIDTH)
        self.time_text_embed = nn.Sequential(
            nn.Linear(1, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH)
        )
        self.transformer_blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.norm_out = nn.Linear(WIDTH, 2 * WIDTH)
        self.proj_out = nn.Linear(WIDTH, CHANNELS)

    def forward(self, image: Tensor, text: Tensor, sigma: Tensor) -> Tensor:
        """Return ``[B, L, 64]``; ``sigma`` is ``[B, 1]``, 0 to 1."""
        time = self.time_text_embed(sigma)
        x, y = self.img_in(image), self.txt_in(text)
        for block in self.transformer_blocks:
            x, y = block(x, y, time)
        shift, scale = self.norm_out(nn.functional.silu(time)).unsqueeze(1).chunk(2, dim=-1)
        return self.proj_out(modulate(x, shift, scale))


def new_model(seed: int = 0) -> TinyQwen:
    """Return a random model whose channels and layers differ in size as in a trained model."""
    torch.manual_seed(seed)
    model = TinyQwen().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.mul_(torch.exp(0.4 * torch.randn(weight.shape[1])))  # channels
                weight.mul_(float(torch.exp(0.4 * torch.randn(()))))  # layers
            elif name.endswith("bias"):
                weight.normal_(0.0, 0.1)
    return model


def draw_calls(count: int, seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the inputs of ``count`` model calls: smooth images with noise, texts and sigmas."""
    generator = torch.Generator().manual_seed(seed)
    calls = []
    for index in range(count):
        sigma = torch.full((2, 1), 1.0 - index / count)
        smooth = torch.randn(2, 8, CHANNELS, generator=generator).repeat_interleave(16, dim=1)
        noise = torch.randn(2, 128, CHANNELS, generator=generator)
        text = torch.randn(2, 24, TEXT, generator=generator)
        level = sigma.unsqueeze(-1)
        calls.append(((1 - level) * smooth + level * noise, text, sigma))
    return calls
