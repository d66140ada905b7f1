"""Takes the cases of ``helpers/brought_cases.py`` through plan, file and stock ComfyUI.

``python brought_cases.py FOLDER`` writes ``FOLDER/result.json``. Runs in ComfyUI's Python with
ComfyUI's folder as ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

folder = Path(sys.argv[1])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import torch  # noqa: E402
from foundry_package import import_foundry  # noqa: E402
from loaded_demo import difference, load, output  # noqa: E402

import_foundry()

from nvfp4_foundry.demo.model import MODEL_PATH  # noqa: E402
from nvfp4_foundry.quant.checkpoint import verify_checkpoint  # noqa: E402
from nvfp4_foundry.quant.conversion.convert import convert  # noqa: E402
from nvfp4_foundry.quant.errors import FoundryError  # noqa: E402
from nvfp4_foundry.quant.planning import get_preset, make_plan, take_inventory  # noqa: E402
from nvfp4_foundry.quant.sources import open_source  # noqa: E402
from nvfp4_foundry.tests.helpers.brought_cases import CASES, Case  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

# Of the four blocks, the outer two become float8 and the inner two NVFP4.
RECIPE = get_preset("wan2.2-14b").build({"edge_blocks": 1})
TRUTH = load_file(MODEL_PATH)


def plain(weight: torch.Tensor) -> torch.Tensor:
    """Return what ComfyUI computes with."""
    return weight.dequantize() if type(weight).__name__ == "QuantizedTensor" else weight


@torch.inference_mode()
def result_of(case: Case, place: Path, wanted: torch.Tensor) -> dict[str, Any]:
    """Convert and load one case; say how far weights and outputs are from the model's."""
    place.mkdir()
    target, truth = place / "converted.safetensors", case.changed(TRUTH)
    path = case.write(place, truth)
    try:
        with open_source(path, **case.options) as source:
            plan = make_plan(RECIPE, take_inventory(source))
            convert(source, plan, target, on_progress=lambda *_: case.meddle(path))
    except FoundryError as error:
        return {"refused": str(error), "left": target.exists(), "path": str(path)}
    model = load(target)
    weights = dict(model.model.diffusion_model.named_parameters())
    return {
        "problems": verify_checkpoint(target, path, **case.options).problems,
        "lacks": sorted(set(truth) - set(weights)),
        "errors": {
            name: difference(plain(weights[name]), tensor)
            for name, tensor in truth.items()
            if name in weights
        },
        "quantized": sum(type(w).__name__ == "QuantizedTensor" for w in weights.values()),
        # a model that lacks weights cannot run, and one with other weights has other outputs
        "output": difference(output(model), wanted)
        if truth is TRUTH and set(truth) <= set(weights)
        else 0.0,
    }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with torch.inference_mode():
        exact = output(load(MODEL_PATH))
    found = {
        name: result_of(case, folder / f"case {number}", exact)
        for number, (name, case) in enumerate(CASES.items())
    }
    (folder / "result.json").write_text(json.dumps(found))
