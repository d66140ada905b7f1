"""A model card: what a quantized file is, for the people who download it.

Markdown with YAML front matter, as model hubs show it. Everything comes from the file itself, so it
can be written for any file, and says less about files that other tools made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image, PngImagePlugin

from .. import VERSION
from ..checkpoint import CheckpointSummary, LayerSummary, inspect_checkpoint
from ..conversion.lora_advice import lora_advice
from ..errors import CheckpointError
from ..files.write import check_target, write_text, written_whole
from ..formats import FORMATS
from ..hardware.support import STATES, Gpu, Software, format_support
from ..text import format_bytes, format_percent
from .card_recipe import how_to_repeat
from .markdown import code, plain, table
from .pictures.layer_map import draw_layer_map

#: In every card that this tool wrote. Cards without it are not replaced.
MARKER = "<!-- Written by NVFP4 Foundry. Remove this line to keep changes by hand. -->"
_PNG_KEY = "Software"
_PNG_VALUE = "NVFP4 Foundry"
_GPUS = (
    Gpu("Blackwell (RTX 50, B200)", (12, 0), 0),
    Gpu("Hopper (H100)", (9, 0), 0),
    Gpu("Ada (RTX 40)", (8, 9), 0),
    Gpu("Ampere (RTX 30)", (8, 6), 0),
    Gpu("Turing (RTX 20)", (7, 5), 0),
)
_SOFTWARE = Software("2.10", "13.0", "available")
_LOADERS = {
    "diffusion_models": "Load Diffusion Model",
    "text_encoders": "Load CLIP",
    "checkpoints": "Load Checkpoint",
}


def write_card(
    path: Path,
    card_path: Path | None = None,
    *,
    base_model: str = "",
    overwrite: bool = False,
) -> Path:
    """Write the model card of a file, and its layer map beside the card; return the card's path.

    Args:
        path: the file.
        card_path: the card; by default beside the file, with its name and the suffix ``.md``.
        base_model: the model on a hub that the file was made from, as ``owner/name``.
        overwrite: replace a card or a picture that this tool did not write.

    Raises:
        CheckpointError: the file cannot be read, a card or picture by someone else is in the way,
            or ``base_model`` is not the name of a model.
        FileError: the card or the picture cannot be written.
        SourceError: the file cannot be read.
    """
    if base_model and not re.fullmatch(r"[\w.-]+/[\w.-]+", base_model, re.ASCII):
        raise CheckpointError(f"{base_model!r} is not the name of a model, such as owner/name")
    card_path = path.with_suffix(".md") if card_path is None else card_path
    picture_path = card_path.with_name(f"{path.stem}.png")
    for written, is_own in ((card_path, _is_own_card), (picture_path, _is_own_picture)):
        check_target(written, overwrite=True)
        if not overwrite:
            _require_own(written, is_own)
    summary = inspect_checkpoint(path)
    card = model_card(summary, path.name, picture_path.name, base_model)
    information = PngImagePlugin.PngInfo()
    information.add_text(_PNG_KEY, _PNG_VALUE)
    with written_whole(picture_path) as file:
        _layer_map(summary, path.name).save(file, "PNG", pnginfo=information)
    write_text(card_path, card)
    return card_path


def model_card(
    summary: CheckpointSummary, name: str, picture: str = "", base_model: str = ""
) -> str:
    """Return the card of a file as Markdown.

    ``picture`` is the name of the layer map beside the card, empty if there is none.
    """
    parts = [
        _front_matter(summary, base_model),
        MARKER,
        f"# {plain(Path(name).stem)}",
        _introduction(summary),
        _facts(summary),
        f"![Format of each layer]({quote(picture)})" if picture else "",
        "## Formats",
        _formats(summary),
        "## GPUs",
        _gpus(summary),
        "## Use it in ComfyUI",
        _usage(summary, name),
        *how_to_repeat(summary.provenance, name),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(summary: CheckpointSummary, base_model: str) -> str:
    formats = [name for name in summary.counts() if _is_quantized(name)]
    lines = ["---", "library_name: diffusion-single-file"]
    if base_model:
        lines += [f"base_model: {base_model}", "base_model_relation: quantized"]
    lines += ["tags:", "- comfyui", "- quantized", *(f"- {name}" for name in formats), "---"]
    return "\n".join(lines)


def _introduction(summary: CheckpointSummary) -> str:
    counts = ", ".join(f"{count} {plain(name)}" for name, count in summary.counts().items())
    model = plain(summary.architecture)
    return (
        f"{model} with quantized weights for ComfyUI, which loads this file without extra nodes. "
        f"Its Linear layers: {counts or 'none'}."
    )


def _facts(summary: CheckpointSummary) -> str:
    made = summary.provenance
    rows = [("size", _size(summary))]
    overall = summary.overall_error()
    if overall is not None:
        beside = f"the plain max rule would leave {overall.max_rule:.2%}"
        rows.append((f"error ({overall.what})", f"{overall.error:.2%}; {beside}"))
    if made.get("source"):
        rows.append(("made from", _source(made)))
    if made.get("loras"):
        rows.append(("LoRAs baked in", ", ".join(map(_lora, made["loras"]))))
    recipe = made.get("recipe")
    if recipe:
        rows.append(("recipe", code(str(recipe.get("name", "custom")))))
    roundings = made.get("roundings")
    if roundings:
        counted = (f"{plain(str(count))} {code(str(name))}" for name, count in roundings.items())
        rows.append(("layers by rounding", ", ".join(counted)))
    rows.append(("input scales", _scales(summary)))
    rows.append(("calibration", _calibration(made.get("calibration"))))
    tool = made.get("tool") or "another tool"
    rows.append(("written by", plain(tool) + _on(made)))
    rows.append(("card by", f"nvfp4\\-foundry {VERSION}"))
    return table(("", ""), rows)


def _size(summary: CheckpointSummary) -> str:
    after = format_bytes(summary.total_bytes)
    before = summary.bytes_before
    if not before:
        return after
    return f"{format_bytes(before)} → {after} ({summary.total_bytes / before:.0%})"


def _source(made: dict[str, Any]) -> str:
    digest = made.get("source_digest")
    shown = f" (digest of its shapes {code(str(digest))})" if digest else ""
    return code(str(made["source"])) + shown


def _lora(lora: dict[str, Any]) -> str:
    return f"{code(str(lora.get('name')))} × {plain(str(lora.get('strength')))}"


def _scales(summary: CheckpointSummary) -> str:
    static = sum(la.input_scale is not None for la in summary.layers)
    return f"{static} static, {len(summary.dynamic_layers)} left to the runtime"


def _calibration(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return "none"
    runs = len(_list(calibration.get("runs")))
    counts = (str(calibration.get(name, "?")) for name in ("prompts", "model_calls", "layers"))
    prompts, calls, layers = map(plain, counts)
    return f"{runs} runs, {prompts} prompts, {calls} model calls, {layers} layers observed"


def _on(made: dict[str, Any]) -> str:
    day = made.get("created", "")[:10]
    return f" on {plain(day)}" if day else ""


def _formats(summary: CheckpointSummary) -> str:
    groups: dict[str, list[LayerSummary]] = {}
    for layer in summary.layers:
        if layer.kind == "linear":
            groups.setdefault(layer.format, []).append(layer)
    rows = [
        (
            code(name),
            str(len(layers)),
            format_bytes(sum(la.bytes for la in layers)),
            f"{FORMATS[name].bits:g}" if name in FORMATS and _is_quantized(name) else "",
            _mean(la.record.weight_error if la.record else None for la in layers),
            _mean(la.record.output_error_w4a16 if la.record else None for la in layers),
            _mean(la.record.output_error_w4a4 if la.record else None for la in layers),
        )
        for name, layers in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]
    rest = sum(la.bytes for la in summary.layers if la.kind != "linear")
    rows.append(("other layers", "", format_bytes(rest), "", "", "", ""))
    headings = (
        "format", "Linear layers", "size", "bits per weight",
        "weight error", "output error, 16-bit inputs", "output error, inputs rounded",
    )  # fmt: skip
    return table(headings, rows) + "\n\nErrors are means over the layers of a format."


def _mean(errors: Iterable[float | None]) -> str:
    known = [error for error in errors if error is not None]
    return format_percent(sum(known) / len(known)) if known else ""


def _gpus(summary: CheckpointSummary) -> str:
    names = [name for name in summary.counts() if _is_quantized(name)]
    if not names:
        return "No Linear layer is quantized, so any GPU runs this file as it runs the original."
    rows = [
        (gpu.name, *(STATES[format_support(name, gpu, _SOFTWARE).state] for name in names))
        for gpu in _GPUS
    ]
    needing = [name for name in names if FORMATS[name].needs_kernels]
    kernels = ", ".join(map(code, needing))
    return (
        table(("GPU", *map(code, names)), rows)
        + "\n\n*Saves memory only* means that weights are decoded and multiplied in 16 bits."
        + (f" Native products of {kernels} need a torch built for CUDA 13." if needing else "")
    )


def _usage(summary: CheckpointSummary, name: str) -> str:
    loader = _LOADERS[summary.folder]
    steps = [
        f"1. Put {code(name)} into {code(f'ComfyUI/models/{summary.folder}')}.",
        f"2. Load it with *{loader}*. No custom nodes are needed{_version(summary)}.",
        "3. Everything else in the workflow stays as it is for the original model.",
    ]
    advice = lora_advice(name for name in summary.counts() if name in FORMATS)
    if advice and summary.folder != "text_encoders":
        steps += ["", f"LoRAs: {advice}."]
    return "\n".join(steps)


def _version(summary: CheckpointSummary) -> str:
    needed = summary.needs_comfyui
    return f", but ComfyUI {plain(needed)} or newer" if needed else ""


def _layer_map(summary: CheckpointSummary, name: str) -> Image.Image:
    linears = [la for la in summary.layers if la.kind == "linear"]
    return draw_layer_map(
        {la.name: la.format for la in linears},
        {la.name: la.shape for la in linears},
        f"Formats of {name}",
        f"{summary.architecture}, {format_bytes(summary.total_bytes)}",
    )


def _is_quantized(name: str) -> bool:
    return name in FORMATS and FORMATS[name].is_quantized


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _require_own(path: Path, is_own: Any) -> None:
    if path.exists() and not is_own(path):
        raise CheckpointError(
            f"{path} exists and was not written by this tool; choose another name, or overwrite it"
        )


def _is_own_card(path: Path) -> bool:
    return MARKER in path.read_text(encoding="utf-8", errors="replace")


def _is_own_picture(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return picture.info.get(_PNG_KEY) == _PNG_VALUE
    except OSError:
        return False
