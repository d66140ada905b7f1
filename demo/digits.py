"""The demo's task: 8x8 grey digits as WAN latents, and one fixed text context per digit.

The codec works in the space of the model's inputs. In ComfyUI, this is the latent *after*
``latent_format.process_in``. ComfyUI's sampler applies ``process_out`` to the latents it returns,
so apply ``process_in`` to them before you decode them here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

DIGITS_PATH = Path(__file__).with_name("digits.safetensors")

CLASSES = 10
IMAGE_SIZE = 8
LATENT_CHANNELS = 16
CONTEXT_TOKENS = 4
CONTEXT_WIDTH = 4096

# Mean and standard deviation of the pixels of scikit-learn's digits, scaled to 0 to 1.
PIXEL_MEAN = 0.305
PIXEL_DEVIATION = 0.376


@dataclass(frozen=True)
class DigitsTask:
    """The codec between digits and latents, and the text embedding of each digit.

    Attributes:
        direction: float32 [16], unit length, the direction of a pixel's value in channel space.
        class_contexts: [10, 4, 4096], the text embedding of each digit.
        empty_context: [1, 4, 4096], the text embedding of an empty prompt.
    """

    direction: Tensor
    class_contexts: Tensor
    empty_context: Tensor

    def encode(self, images: Tensor) -> Tensor:
        """Map images [B, 8, 8], 0 to 1, to latents [B, 16, 1, 8, 8] of about unit variance.

        Each standardized pixel becomes a vector along ``direction``. The factor 4 makes the mean
        square over the 16 channels one.
        """
        standardized = (images - PIXEL_MEAN) / PIXEL_DEVIATION
        amplitude = LATENT_CHANNELS**0.5 * self.direction.to(images)
        return torch.einsum("bhw,c->bchw", standardized, amplitude)[:, :, None]

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents [B, 16, 1, 8, 8] to images [B, 8, 8], not clamped to 0 to 1.

        This is the left inverse of ``encode``. It drops the part that is orthogonal to
        ``direction``.
        """
        direction = self.direction.to(latents)
        along = torch.einsum("bcfhw,c->bfhw", latents, direction)[:, 0]
        return along / LATENT_CHANNELS**0.5 * PIXEL_DEVIATION + PIXEL_MEAN

    def contexts(self, labels: Sequence[int] | Tensor) -> Tensor:
        """Return the text contexts [B, 4, 4096] of the digits ``labels`` [B]."""
        return self.class_contexts[torch.as_tensor(labels).cpu()]

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to store, by the names that ``load_task`` reads."""
        return {
            "codec.direction": self.direction,
            "context.classes": self.class_contexts,
            "context.empty": self.empty_context,
        }


def new_task(seed: int) -> DigitsTask:
    """Draw a codec and contexts from ``seed``.

    A context has the form of a text encoder's output for a short prompt: tokens with the meaning,
    an end token, and zeros as padding. The empty prompt starts with the end token. There are
    several tokens, because with one token the queries and keys of cross-attention would not matter.
    """
    rng = np.random.default_rng(seed)
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], size=LATENT_CHANNELS)).float()
    words = torch.from_numpy(rng.standard_normal((CLASSES, CONTEXT_TOKENS - 2, CONTEXT_WIDTH)))
    end = torch.from_numpy(rng.standard_normal(CONTEXT_WIDTH))

    class_contexts = torch.zeros(CLASSES, CONTEXT_TOKENS, CONTEXT_WIDTH, dtype=torch.float64)
    class_contexts[:, :-2] = words
    class_contexts[:, -2] = end
    empty_context = torch.zeros(1, CONTEXT_TOKENS, CONTEXT_WIDTH, dtype=torch.float64)
    empty_context[:, 0] = end
    return DigitsTask(
        direction=signs / LATENT_CHANNELS**0.5,
        class_contexts=class_contexts.to(torch.bfloat16),
        empty_context=empty_context.to(torch.bfloat16),
    )


def load_task(path: str | Path | None = None) -> DigitsTask:
    """Load the task that the demo model was trained on, or the one in ``path``."""
    tensors = load_file(path or DIGITS_PATH)
    return DigitsTask(
        direction=tensors["codec.direction"],
        class_contexts=tensors["context.classes"],
        empty_context=tensors["context.empty"],
    )
