"""How to make a file again: the part of a model card with the recipe, the command and the graph."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .markdown import block, code


def how_to_repeat(provenance: dict[str, Any], name: str) -> Iterator[str]:
    """Yield the paragraphs; none if the file does not tell its recipe."""
    recipe = provenance.get("recipe")
    if not recipe:
        return
    recipe_file = f"{Path(name).stem}.recipe.json"
    source = provenance.get("source") or "SOURCE.safetensors"
    calibration = provenance.get("calibration") is not None
    yield "## Make it again"
    yield f"Save the recipe below as {code(recipe_file)}."
    if provenance.get("loras"):
        yield (
            "The model had LoRAs, which only the nodes bake in. In ComfyUI, load it with its "
            "LoRAs, then connect *Load Recipe*, *Plan Layers*, *Quantize Model to NVFP4* and "
            "*Save NVFP4 Checkpoint*."
        )
    else:
        yield block(_command(source, name, recipe_file, provenance, calibration=calibration))
        yield (
            "Or in ComfyUI: connect *Load Recipe* to *Quantize File to NVFP4*, choose the source "
            "and run."
        )
    if calibration:
        yield (
            "`calibration.safetensors` stands for a calibration of the source model. To make one, "
            "connect *Calibrate* and *Calibration Result*, and sample prompts of your own. Another "
            "calibration gives other input scales."
        )
    scales = str(recipe.get("input_scale") or "")
    if scales.startswith("file"):
        yield f"The recipe also reads input scales from a file: {code(scales)}."
    text = json.dumps(recipe, indent=1)
    yield f"<details><summary>Recipe</summary>\n\n{block(text, 'json')}\n\n</details>"


def _command(
    source: str, target: str, recipe: str, provenance: dict[str, Any], *, calibration: bool
) -> str:
    """Return the command line; names that look like options are paths."""
    source, target = (f"./{name}" if name.startswith("-") else name for name in (source, target))
    words = ["nvfp4", "quantize", source, target, "--recipe", recipe]
    words += ["--calibration", "calibration.safetensors"] if calibration else []
    words += ["--whole-checkpoint"] if provenance.get("whole_checkpoint") else []
    return shlex.join(words)
