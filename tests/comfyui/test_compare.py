"""Compare NVFP4 Samples in a real ComfyUI, on latents it samples and on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.reports.pictures.side_by_side import GAP, LABEL_HEIGHT, enlargement
from PIL import Image
from safetensors.torch import load_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import ComfyServer, RejectedError, Run

TINY = "tiny_wan.safetensors"
# The constants of SSIM for values up to 1.
C1, C2 = 0.01**2, 0.03**2


@pytest.fixture(scope="module")
def quantized(server: ComfyServer) -> str:
    """Name of the tiny model in NVFP4, made by Quantize File to NVFP4."""
    workflow = wf.quantize_file()
    recipe = wf.inputs(workflow, "NVFP4FoundrySelectPreset")
    recipe["preset"] = "wan2.2-14b"
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile").update(
        model_file=f"diffusion_models/{TINY}", file_name="to_compare", if_exists="overwrite"
    )
    run = server.run(workflow)
    assert run.status == "success", run.error
    return "to_compare.safetensors"


def compared(workflow: wf.Workflow, reference: list[Any], other: list[Any], **values: Any) -> str:
    """Add the node, and stock nodes that keep its outputs; return its id."""
    links = {"reference": reference, "other": other, "gain": 5.0, **values}
    node = wf.add(workflow, "compare", "NVFP4FoundryCompareSamples", **links)
    wf.add(workflow, "error", "PreviewAny", source=[node, 1])
    wf.add(workflow, "picture", "SaveImage", images=[node, 2], filename_prefix="picture")
    return node


def two_samplers(quantized: str, *, batch: int = 1, length: int = 1) -> wf.Workflow:
    """The shipped sampling workflow with a second sampler for the quantized model."""
    workflow = wf.sample(TINY, prefix="exact")
    wf.inputs(workflow, "EmptyHunyuanLatentVideo").update(batch_size=batch, length=length)
    sampler = wf.inputs(workflow, "KSampler")
    shift = wf.inputs(workflow, "ModelSamplingSD3")
    first = wf.node(workflow, "KSampler")
    wf.add(workflow, "loader", "UNETLoader", unet_name=quantized, weight_dtype="default")
    wf.add(workflow, "shift", "ModelSamplingSD3", **{**shift, "model": ["loader", 0]})
    wf.add(workflow, "second", "KSampler", **{**sampler, "model": ["shift", 0]})
    wf.save_latent(workflow, ["second", 0], "quantized")
    compared(workflow, [first, 0], ["second", 0])
    return workflow


def two_images(**other: Any) -> wf.Workflow:
    """Two flat images of 48x32 pixels, 0.4 and 0.6 in blue, two of each."""
    values = {"width": 48, "height": 32, "batch_size": 2}
    workflow: wf.Workflow = {}
    wf.add(workflow, "a", "EmptyImage", **values, color=102)
    wf.add(workflow, "b", "EmptyImage", **{**values, "color": 153, **other})
    compared(workflow, ["a", 0], ["b", 0])
    return workflow


def succeeded(server: ComfyServer, workflow: wf.Workflow) -> Run:
    run = server.run(workflow)
    assert run.status == "success", run.error
    return run


def figures(text: str) -> dict[str, float]:
    """Return the figures of the whole batch in a report."""
    lines = text.split("\n\n")[0].splitlines()[1:]
    pairs = [(line[:18].strip(), line[18:].split()[0].rstrip("%")) for line in lines]
    return {name: float(value) for name, value in pairs}


def saved_latent(server: ComfyServer, prefix: str) -> torch.Tensor:
    path = sorted((server.base / "output").glob(f"{prefix}_*.latent"))[-1]
    return load_file(path)["latent_tensor"].double()


def saved_pictures(server: ComfyServer, run: Run) -> list[Path]:
    return [
        server.base / "output" / image["filename"] for image in run.outputs["picture"]["images"]
    ]


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 5)])
def test_latents_of_two_models(
    server: ComfyServer, quantized: str, batch: int, length: int
) -> None:
    run = succeeded(server, two_samplers(quantized, batch=batch, length=length))
    a, b = saved_latent(server, "exact"), saved_latent(server, "quantized")
    assert a.shape == (batch, 16, (length - 1) // 4 + 1, 8, 8)
    expected = float((b - a).norm() / a.norm())
    assert 1e-4 < expected < 0.2
    text = run.text("compare")
    assert text.startswith(f"latents {'x'.join(map(str, a.shape))}\n")
    found = figures(text)
    assert set(found) == {"relative error", "mean squared error", "largest difference"}
    assert found["relative error"] == pytest.approx(100 * expected, abs=6e-4)
    assert found["mean squared error"] == pytest.approx(float((b - a).square().mean()), rel=1e-3)
    assert found["largest difference"] == pytest.approx(float((b - a).abs().max()), rel=1e-3)
    assert float(run.text("error")) == pytest.approx(expected, rel=1e-6)
    rows = text.split("\n\n")[1].splitlines()[2:] if batch > 1 else []
    for index, row in enumerate(rows):
        item = 100 * float((b[index] - a[index]).norm() / a[index].norm())
        assert row.split()[:2] == [str(index), f"{item:.3f}%"]
    assert len(saved_pictures(server, run)) == batch
    for path in saved_pictures(server, run):
        side = 8 * enlargement(8, 8)
        assert Image.open(path).size == (3 * side + 2 * GAP, side + LABEL_HEIGHT)
    assert len(run.outputs["compare"]["images"]) == batch  # shown in the node


def test_a_model_equals_itself(server: ComfyServer) -> None:
    run = succeeded(server, two_samplers(TINY))
    assert float(run.text("error")) == 0
    assert set(figures(run.text("compare")).values()) == {0.0}


def test_images(server: ComfyServer) -> None:
    run = succeeded(server, two_images())
    text = run.text("compare")
    assert text.startswith("images 2x32x48x3\n")
    found = figures(text)
    # one of three channels differs, by 0.2
    assert found["relative error"] == pytest.approx(50, abs=1e-3)
    assert found["mean squared error"] == pytest.approx(0.04 / 3, rel=1e-3)
    assert found["PSNR"] == pytest.approx(10 * np.log10(3 / 0.04), abs=0.01)
    # SSIM of two flat images has no variance term
    blue = (2 * 0.4 * 0.6 + C1) / (0.4**2 + 0.6**2 + C1)
    assert found["SSIM"] == pytest.approx((2 + blue) / 3, abs=2e-4)
    assert len(text.split("\n\n")[1].splitlines()) == 4
    (first, _) = saved_pictures(server, run)
    picture = np.asarray(Image.open(first))
    panel = 48 * enlargement(32, 48)
    assert picture.shape == (32 * enlargement(32, 48) + LABEL_HEIGHT, 3 * panel + 2 * GAP, 3)
    for column, blue_value in enumerate((102, 153, 255)):
        left = column * (panel + GAP)
        colours = picture[LABEL_HEIGHT:, left : left + panel].reshape(-1, 3)
        assert np.abs(colours.astype(int) - (0, 0, blue_value)).max() <= 1


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two channels as Wang et al. 2004 define it, in float64."""
    taps = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    window = torch.tensor(np.outer(taps, taps) / np.outer(taps, taps).sum())[None, None]

    def mean(values: np.ndarray) -> torch.Tensor:
        return torch.nn.functional.conv2d(torch.tensor(values)[None, None], window)

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return float((luminance * (2 * covariance + C2) / (variances + C2)).mean())


def test_ssim_of_noisy_images(server: ComfyServer) -> None:
    generator = np.random.default_rng(0)
    slope = np.linspace(20, 200, 70 * 50 * 3).reshape(50, 70, 3)
    workflow: wf.Workflow = {}
    images = []
    for name, noise in (("a", 0), ("b", 25)):
        pixels = slope + generator.normal(0, noise, slope.shape)
        images.append(pixels.clip(0, 255).astype(np.uint8))
        Image.fromarray(images[-1]).save(server.base / "input" / f"{name}.png")
        wf.add(workflow, name, "LoadImage", image=f"{name}.png")
    compared(workflow, ["a", 0], ["b", 0])
    found = figures(succeeded(server, workflow).text("compare"))
    a, b = (image.astype(np.float64) / 255 for image in images)
    expected = np.mean([ssim(a[..., c], b[..., c]) for c in range(3)])
    assert 0.1 < expected < 0.9
    assert found["SSIM"] == pytest.approx(expected, abs=1e-4)
    assert found["PSNR"] == pytest.approx(-10 * np.log10(np.square(a - b).mean()), abs=0.006)


def test_small_images_have_no_ssim_and_say_so(server: ComfyServer) -> None:
    workflow = two_images()
    for node in ("a", "b"):
        workflow[node]["inputs"].update(width=8, height=8)
    text = succeeded(server, workflow).text("compare")
    assert "PSNR" in text and "SSIM not available: it needs at least 11 x 11 pixels" in text


def test_long_batches_show_the_largest_errors(server: ComfyServer) -> None:
    workflow = two_images(batch_size=10)
    workflow["a"]["inputs"]["batch_size"] = 10
    run = succeeded(server, workflow)
    assert len(run.outputs["compare"]["images"]) == len(saved_pictures(server, run)) == 8
    assert len(run.text("compare").split("\n\n")[1].splitlines()) == 12


@pytest.mark.parametrize("change", [{"width": 64}, {"batch_size": 3}])
def test_other_shapes_are_an_error(server: ComfyServer, change: dict[str, int]) -> None:
    run = server.run(two_images(**change))
    size = f"{change.get('batch_size', 2)}x32x{change.get('width', 48)}x3"
    assert run.status == "error"
    assert f"the reference is 2x32x48x3, the other is {size}" in run.error
    assert "same empty latent" in run.error


def test_latent_and_image_are_an_error(server: ComfyServer) -> None:
    workflow = two_images()
    values = {"width": 64, "height": 64, "length": 1, "batch_size": 1}
    wf.add(workflow, "b", "EmptyHunyuanLatentVideo", **values)
    run = server.run(workflow)
    assert run.status == "error" and "decode both with the same VAE" in run.error


def test_anything_else_is_refused_before_the_queue_starts(server: ComfyServer) -> None:
    workflow = two_images()
    wf.add(workflow, "b", "PrimitiveString", value="no picture")
    with pytest.raises(RejectedError, match=r"received_type\(STRING\).*LATENT,IMAGE"):
        server.queue(workflow)


def test_zero_against_itself(server: ComfyServer) -> None:
    workflow: wf.Workflow = {}
    values = {"width": 64, "height": 64, "length": 1, "batch_size": 1}
    wf.add(workflow, "a", "EmptyHunyuanLatentVideo", **values)
    compared(workflow, ["a", 0], ["a", 0])
    assert float(succeeded(server, workflow).text("error")) == 0
