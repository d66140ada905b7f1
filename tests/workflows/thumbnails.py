"""Draw the pictures of the templates: ``python -m tests.workflows.thumbnails``.

All of them show real data: the plans of the real models, and the demo model that comes with the
pack, which is calibrated, quantized and sampled for it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from nvfp4_foundry.demo.digits import load_task
from nvfp4_foundry.demo.model import TinyWan, load_model
from nvfp4_foundry.demo.quantized import load_quantized
from nvfp4_foundry.demo.sampling import sample
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.planning import Inventory, Plan, automatic_recipe, get_preset, make_plan
from nvfp4_foundry.quant.planning.inventory import inventory_of
from nvfp4_foundry.quant.rounding.max import MaxRule
from nvfp4_foundry.quant.sources import open_source
from nvfp4_foundry.quant.sources.base import TensorInfo
from PIL import Image, ImageDraw

from tests.data import manifests
from tests.workflows import art

FOLDER = Path(__file__).parents[2] / "example_workflows"
TINY = Path(__file__).parents[2] / "demo" / "tiny_wan.safetensors"
SIZE = 512
_EDGE = 36
_GIGABYTE = 10**9
_DIGITS = (0, 2, 3, 4, 6, 7, 8, 9)
#: What stays in float32 in the real files.
_FLOAT32 = {"__index_timestep_zero__"}


@dataclass(frozen=True)
class Cells:
    """A map of layers: rows of kinds, columns of blocks, a colour or nothing in each cell."""

    rows: list[str]
    columns: int
    colours: dict[tuple[int, int], art.Colour]


def planned(model: str) -> tuple[Plan, Cells]:
    """Return the automatic plan of a real model, and the map of its formats."""
    dtype = torch.float32 if model == "z-image" else torch.bfloat16
    shapes = manifests.MODELS[model]()
    inventory = inventory_of(
        TensorInfo(n, s, torch.float32 if n in _FLOAT32 else dtype) for n, s in shapes.items()
    )
    plan = make_plan(automatic_recipe(), inventory)
    colours = {layer.name: art.FORMATS.get(layer.format, art.MUTED) for layer in plan.layers}
    return plan, arranged(inventory, colours)


def arranged(inventory: Inventory, colours: dict[str, art.Colour]) -> Cells:
    """Return the Linear layers of the longest list of blocks as a map."""
    linear = [la for la in inventory.of_kind("linear") if la.block is not None]
    sizes: dict[str, int] = {}
    for layer in linear:
        if layer.block:
            sizes[layer.block.container] = layer.block.count
    container = max(sizes, key=sizes.__getitem__)
    rows: list[str] = []
    cells: dict[tuple[int, int], art.Colour] = {}
    for layer in linear:
        if layer.block is None or layer.block.container != container:
            continue
        row = layer.name.removeprefix(f"{container}.").partition(".")[2]
        if row not in rows:
            rows.append(row)
        cells[rows.index(row), layer.block.index] = colours.get(layer.name, art.MUTED)
    return Cells(rows, sizes[container], cells)


def draw_cells(
    draw: ImageDraw.ImageDraw, cells: Cells, place: tuple[float, float, float, float]
) -> None:
    """Fill a box with a map."""
    left, top, right, bottom = place
    width, height = (right - left) / cells.columns, (bottom - top) / len(cells.rows)
    gap = min(width, height) * 0.06
    for (row, column), colour in cells.colours.items():
        x, y = left + column * width, top + row * height
        inner = (x + gap, y + gap, x + width - gap, y + height - gap)
        art.box(draw, inner, colour, min(width, height) * 0.12)


def framed(title: str, line: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return a picture with a title and a line below it."""
    picture, draw = art.canvas(SIZE, SIZE)
    art.write(draw, (_EDGE, 34), title, 42)
    art.write(draw, (_EDGE, 92), line, 25, art.MUTED)
    return picture, draw


def legend(draw: ImageDraw.ImageDraw, names: tuple[tuple[str, art.Colour], ...]) -> None:
    """Draw names with their colours along the bottom."""
    x = float(_EDGE)
    for name, colour in names:
        art.box(draw, (x, 462, x + 22, 484), colour, 4)
        art.write(draw, (x + 32, 473), name, 21, art.TEXT, "lm")
        x += 58 + 11 * len(name)


_LEGEND = (
    ("NVFP4", art.FORMATS["nvfp4"]),
    ("float8", art.FORMATS["float8_e4m3fn"]),
)


def model_picture(model: str, title: str, times: int = 1) -> Image.Image:
    """Return the plan of a real model: sizes, and the map of its formats."""
    plan, cells = planned(model)
    sizes = (f"{times * n / _GIGABYTE:.1f} GB" for n in (plan.bytes_before, plan.bytes_after))
    picture, draw = framed(title, " becomes ".join(sizes))
    draw_cells(draw, cells, (_EDGE, 148, SIZE - _EDGE, 440))
    legend(draw, _LEGEND)
    return art.finished(picture)


def file_picture() -> Image.Image:
    """Return a file that becomes a smaller one."""
    picture, draw = framed("One model file", "choose it, press Run")
    plan, cells = planned("wan2.2-ti2v-5b")
    after = 300 * math.sqrt(plan.bytes_after / plan.bytes_before)
    art.box(draw, (_EDGE, 150, _EDGE + 200, 450), art.PANEL, 10)
    art.write(draw, (_EDGE + 100, 300), "16-bit", 34, art.MUTED, "mm")
    tip = [(246, 282), (266, 300), (246, 318)]
    draw.polygon([(x * art.OVERSAMPLING, y * art.OVERSAMPLING) for x, y in tip], art.ACCENT)
    middle, high = 300, after * 1.1
    place = (286, middle - high / 2, SIZE - _EDGE, middle + high / 2)
    draw_cells(draw, cells, place)
    art.write(draw, (381, middle + high / 2 + 30), "NVFP4", 30, art.TEXT, "mm")
    return art.finished(picture)


def ranges() -> dict[str, float]:
    """Return the largest input of every Linear of the demo model while it samples four digits."""
    model, found = load_model(), {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            found[name] = max(found.get(name, 0.0), float(args[0].abs().max()))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(watch(name))
    sample(model, _DIGITS[:4], seed=1, task=load_task())
    return found


def calibration_picture() -> Image.Image:
    """Return the ranges that a calibration of the demo model records."""
    picture, draw = framed("Calibrate", "what every layer receives")
    found = {name: math.log(value) for name, value in ranges().items()}
    low, high = min(found.values()), max(found.values())
    colours = {name: art.heat((value - low) / (high - low)) for name, value in found.items()}
    with open_source(TINY) as source:
        cells = arranged(inventory_of(source.tensors.values()), colours)
    draw_cells(draw, cells, (_EDGE, 148, SIZE - _EDGE, 440))
    steps = 60
    for step in range(steps):
        x = _EDGE + 120 + step * 200 / steps
        art.box(draw, (x, 464, x + 200 / steps + 1, 484), art.heat(step / (steps - 1)), 0)
    art.write(draw, (_EDGE, 474), "small", 21, art.TEXT, "lm")
    art.write(draw, (SIZE - _EDGE, 474), "large input", 21, art.TEXT, "rm")
    return art.finished(picture)


def costs() -> list[tuple[int, float]]:
    """Return size and squared weight error as layers of the demo model move to float8, best first.

    It begins with all layers in NVFP4.
    """
    options = []
    with open_source(TINY) as source:
        for layer in inventory_of(source.tensors.values()).of_kind("linear"):
            if layer.block is None:
                continue
            weight = source.load(layer.tensor.name).float()
            energy, found = float(weight.square().sum()), []
            for name in ("nvfp4", "float8_e4m3fn"):
                encoded = get_format(name).encode(weight, MaxRule(), measure_error=True)
                size = sum(t.nbytes for t in encoded.tensors.values())
                found.append((size, (encoded.relative_error or 0) ** 2 * energy))
            options.append(found)
    options.sort(key=lambda o: (o[0][1] - o[1][1]) / (o[1][0] - o[0][0]), reverse=True)
    size, error = (sum(option[0][i] for option in options) for i in (0, 1))
    curve = [(int(size), float(error))]
    for four, eight in options:
        size, error = size + eight[0] - four[0], error + eight[1] - four[1]
        curve.append((int(size), float(error)))
    return curve


def mix_picture() -> Image.Image:
    """Return the frontier of size and error of the demo model."""
    picture, draw = framed("Measure and mix", "the least error for your size")
    curve = costs()
    left, top, right, bottom = _EDGE + 14, 172, SIZE - _EDGE, 436
    (small, worst), (large, best) = curve[0], curve[-1]
    points = [
        (
            left + (size - small) / (large - small) * (right - left),
            top + (math.sqrt(worst) - math.sqrt(error))
            / (math.sqrt(worst) - math.sqrt(best)) * (bottom - top),
        )
        for size, error in curve
    ]  # fmt: skip
    scale = art.OVERSAMPLING
    for share in (0.25, 0.5, 0.75):
        y = (top + share * (bottom - top)) * scale
        draw.line([(left * scale, y), (right * scale, y)], art.PANEL, scale)
    axes = [(left * scale, top * scale), (left * scale, bottom * scale)]
    draw.line([*axes, (right * scale, bottom * scale)], art.MUTED, 2 * scale)
    draw.line([(x * scale, y * scale) for x, y in points], art.FORMATS["nvfp4"], 6 * scale)
    for number, (x, y) in enumerate(points[:: max(1, len(points) // 8)]):
        radius, fill = (13, art.ACCENT) if number == 2 else (7, art.FORMATS["float8_e4m3fn"])
        art.box(draw, (x - radius, y - radius, x + radius, y + radius), fill, radius)
    art.write(draw, (left - 12, top - 14), "error", 23, art.MUTED, "ls")
    art.write(draw, (right, bottom + 16), "size", 23, art.MUTED, "ra")
    return art.finished(picture)


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    """Return digits ``[N, 8, 8]`` that the demo model and its NVFP4 copy sample from one seed."""
    task = load_task()
    with tempfile.TemporaryDirectory() as folder, open_source(TINY) as source:
        target = Path(folder) / "tiny_nvfp4.safetensors"
        plan = make_plan(get_preset("all").build(), inventory_of(source.tensors.values()))
        convert(source, plan, target)
        copy = load_quantized(target, round_activations=True)

    def digits(model: TinyWan) -> torch.Tensor:
        return task.decode(sample(model, _DIGITS, seed=3, task=task)).clamp(0, 1)

    return digits(load_model()), digits(copy)


def _paste(picture: Image.Image, image: torch.Tensor, at: tuple[float, float], size: int) -> None:
    values = image.mul(255).round().to(torch.uint8)
    small = Image.fromarray(values.numpy()).convert("RGB")
    width = size * art.OVERSAMPLING
    place = (round(at[0] * art.OVERSAMPLING), round(at[1] * art.OVERSAMPLING))
    picture.paste(small.resize((width, width), Image.Resampling.NEAREST), place)


def compare_picture(original: torch.Tensor, quantized: torch.Tensor) -> Image.Image:
    """Return samples of both models and their difference."""
    picture, draw = framed("Compare", "one seed, two models")
    rows = (
        ("original", original),
        ("NVFP4", quantized),
        ("difference x 5", ((quantized - original).abs() * 5).clamp(0, 1)),
    )
    for row, (name, images) in enumerate(rows):
        y = 146 + row * 116
        art.write(draw, (_EDGE, y), name, 20, art.MUTED)
        for column in range(5):
            _paste(picture, images[column], (_EDGE + column * 90, y + 27), 80)
    return art.finished(picture)


def sample_picture(quantized: torch.Tensor) -> Image.Image:
    """Return samples of the quantized model."""
    picture, _ = framed("Sample it", "with ComfyUI's own nodes")
    for number, image in enumerate(quantized[:6]):
        _paste(picture, image, (_EDGE + number % 3 * 151, 150 + number // 3 * 160), 138)
    return art.finished(picture)


def pictures() -> dict[str, Image.Image]:
    """Return the picture of every template by its title."""
    original, quantized = samples()
    return {
        "Quantize a model file": file_picture(),
        "Calibrate and quantize a model": calibration_picture(),
        "Measure layers and mix formats": mix_picture(),
        "Compare original and quantized": compare_picture(original, quantized),
        "Sample a quantized model": sample_picture(quantized),
        "Quantize WAN 2.2 5B": model_picture("wan2.2-ti2v-5b", "WAN 2.2 5B"),
        "Quantize WAN 2.2 14B": model_picture("wan2.2-t2v-14b", "WAN 2.2 14B", 2),
        "Quantize Qwen-Image 2512": model_picture("qwen-image-2512", "Qwen-Image 2512"),
        "Quantize Qwen-Image Edit 2511": model_picture("qwen-image-edit-2511", "Qwen-Image Edit"),
        "Quantize Flux.1 dev": model_picture("flux1-dev", "Flux.1 dev"),
    }


def main() -> None:
    """Write the pictures and remove those of templates that are gone."""
    found = pictures()
    for path in FOLDER.glob("*.jpg"):
        if path.stem not in found:
            path.unlink()
    for title, picture in found.items():
        picture.save(FOLDER / f"{title}.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
