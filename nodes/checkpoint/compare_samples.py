"""The node that compares what two models sample from one seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io

from ...quant.difference import Difference, differences
from ...quant.errors import CompareError
from ...quant.reports.pictures.side_by_side import image_pixels, latent_pixels, side_by_side
from ...quant.reports.samples import describe_samples
from ...quant.reports.view import text_view
from ..foundry_node import FoundryNode
from ..inputs.sockets import MEASURE
from ..reports.shown import shown
from ..reports.theme import page_theme

# Triple-width pictures of a long video would fill the memory.
_MOST_PICTURES = 8
_SSIM_WINDOW = 11
_PEAK = 1.0


class CompareSamples(FoundryNode):
    """Measure the difference of two samples and draw where they differ."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryCompareSamples",
            display_name="Compare NVFP4 Samples",
            category=MEASURE,
            description=(
                "Measures how far two latents or two images are apart and shows where they "
                "differ. Use it to compare samples of one seed from a model and its quantized copy."
            ),
            search_aliases=["nvfp4 compare", "psnr", "ssim", "mse", "image difference", "quality"],
            inputs=[
                io.MultiType.Input(
                    "reference",
                    [io.Latent, io.Image],
                    tooltip="The LATENT or IMAGE from the original model.",
                ),
                io.MultiType.Input(
                    "other",
                    [io.Latent, io.Image],
                    tooltip="The LATENT or IMAGE from the other model, with the same size, batch "
                    "and seed.",
                ),
                io.Float.Input(
                    "gain",
                    default=5.0,
                    min=0.1,
                    max=1000.0,
                    step=0.5,
                    tooltip="How much to amplify the difference in the picture. The figures do not "
                    "depend on it.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report"),
                io.Float.Output(display_name="relative_error"),
                io.Image.Output(display_name="picture"),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, reference: Any, other: Any, gain: float) -> io.NodeOutput:
        """Return the figures and the picture."""
        if isinstance(reference, dict) != isinstance(other, dict):
            raise CompareError(
                "one input is a LATENT and the other an IMAGE: connect two LATENTs, or decode "
                "both with the same VAE and connect two IMAGEs"
            )
        is_latent = isinstance(reference, dict)
        wanted, given = _tensor(reference, "reference"), _tensor(other, "other")
        try:
            items = differences(wanted, given)
        except CompareError as error:
            raise CompareError(
                f"{error}. Compare samples with the same size, length and batch: start both "
                "samplers from the same empty latent"
            ) from error
        ssim, notes = ([], []) if is_latent else _ssim(wanted, given)
        text = describe_samples(
            f"{'latents' if is_latent else 'images'} {_size(wanted)}",
            items,
            peak=None if is_latent else _PEAK,
            ssim=ssim,
            notes=notes,
        )
        pictures = _pictures(wanted, given, items, gain, is_latent)
        return io.NodeOutput(
            text,
            sum(items, Difference()).relative_error,
            pictures,
            ui=shown(text_view("Samples compared", text), pictures),
        )


def _tensor(value: Any, name: str) -> torch.Tensor:
    """Return the batch in a LATENT or IMAGE."""
    tensor: Any = value.get("samples") if isinstance(value, dict) else value
    if not isinstance(tensor, torch.Tensor):
        raise CompareError(
            f"{name} holds a {type(tensor).__name__}, but only latents and images with a single "
            "tensor can be compared. Separate video and audio latents first"
        )
    if not tensor.numel() or tensor.dim() < 3:
        raise CompareError(f"{name} is empty or not a batch: {_size(tensor)}")
    return tensor


def _size(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _ssim(reference: torch.Tensor, other: torch.Tensor) -> tuple[list[float], list[str]]:
    """Return the structural similarity of each image, or none and the reason why not.

    Gaussian window of 11 pixels, sigma 1.5, borders left out: Wang et al. 2004.
    """
    try:
        from kornia.metrics import ssim  # ComfyUI lists kornia as optional
    except ImportError as error:
        return [], [f"SSIM not available: {error}"]
    height, width = reference.shape[1:3]
    if min(height, width) < _SSIM_WINDOW:
        return [], [f"SSIM not available: it needs at least {_SSIM_WINDOW} x {_SSIM_WINDOW} pixels"]
    values = []
    for pair in zip(reference, other, strict=True):
        a, b = (image.detach().float().movedim(-1, 0).unsqueeze(0).contiguous() for image in pair)
        similarity = ssim(a, b, _SSIM_WINDOW, max_val=_PEAK, eps=0.0, padding="valid")
        values.append(float(similarity.mean()))
    return values, []


def _pictures(
    reference: torch.Tensor,
    other: torch.Tensor,
    items: Sequence[Difference],
    gain: float,
    is_latent: bool,
) -> torch.Tensor:
    """Return pictures of the items with the largest errors ``[N, H, W, 3]``, in their order."""
    by_error = sorted(range(len(items)), key=lambda i: items[i].relative_error, reverse=True)
    theme = page_theme()
    drawn = []
    for index in sorted(by_error[:_MOST_PICTURES]):
        a, b = reference[index], other[index]
        pixels = latent_pixels(a, b) if is_latent else (image_pixels(a), image_pixels(b))
        number = f" {index}" if len(items) > 1 else ""
        error = f"other: error {items[index].relative_error:.2%}"
        titles = (f"reference{number}", error, f"difference x {gain:g}")
        drawn.append(side_by_side(*pixels, gain, titles, theme))
    return torch.stack(drawn)
