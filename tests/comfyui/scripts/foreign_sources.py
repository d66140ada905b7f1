"""Foreign sources beside ComfyUI's own reading of them: ``python foreign_sources.py RESULT.json``.

Runs in ComfyUI's Python with ComfyUI's folder as ``PYTHONPATH``. Puts models with the names of
diffusers together, as ComfyUI does for unquantized files, and multiplies a layer with a
``pre_quant_scale``, where ComfyUI knows it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

result_path = Path(sys.argv[1])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_detection  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from comfy.quant_ops import QUANT_ALGOS  # noqa: E402
from foundry_package import import_foundry  # noqa: E402

import_foundry()

from nvfp4_foundry.quant.formats import get_format  # noqa: E402
from nvfp4_foundry.quant.rounding import MaxRule  # noqa: E402
from nvfp4_foundry.quant.sources import StateDictSource, decoded, in_comfy_names  # noqa: E402
from nvfp4_foundry.tests.helpers.diffusers_files import PAIRS, WIDTH  # noqa: E402

MARKER = "comfy_quant"


def put_together(kind: str) -> dict[str, object]:
    """Compare our tensors with those of ComfyUI's conversion, which may not know all of them."""
    model, theirs = PAIRS[kind]
    source = in_comfy_names(StateDictSource(theirs))
    if kind == "Flux.2":  # ComfyUI's conversion needs biases that Flux.2 does not have
        converted = blocks_by_map(theirs)
    else:
        copies = {name: tensor.clone() for name, tensor in theirs.items()}  # it swaps in place
        converted = comfy.model_detection.convert_diffusers_mmdit(copies, "")
    return {
        "compared": len(converted),
        "all": len(model),
        "different": [
            name
            for name, tensor in converted.items()
            if name not in source.tensors or not torch.equal(source.load(name), tensor)
        ],
    }


def blocks_by_map(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put together what ComfyUI's table of Flux knows, which it uses for LoRAs of Flux.2."""
    config = {"depth": 2, "depth_single_blocks": 2, "hidden_size": WIDTH}
    made: dict[str, torch.Tensor] = {}
    for name, place in comfy.utils.flux_to_diffusers(config).items():
        if name not in theirs:
            continue
        tensor = theirs[name]
        if isinstance(place, str):
            made[place] = tensor
        elif place[1] is None:
            made[place[0]] = place[2](tensor)
        else:
            axis, start, length = place[1]
            whole = made.setdefault(place[0], torch.zeros(3 * length, *tensor.shape[1:]).bfloat16())
            whole.narrow(axis, start, length).copy_(tensor)
    return made


@torch.inference_mode()
def scaled_inputs() -> float | None:
    """Return how much ComfyUI's product differs from that of our decoded weight.

    None if this ComfyUI does not know the vector.
    """
    if "pre_quant_scale" not in QUANT_ALGOS["nvfp4"]["parameters"]:
        return None
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 128, generator=generator)
    scale = 2.0 ** torch.randint(-3, 4, (128,), generator=generator)
    inputs = torch.randn(16, 128, generator=generator)
    tensors = dict(get_format("nvfp4").encode(weight / scale, MaxRule()).tensors)
    marker = json.dumps({"format": "nvfp4", "full_precision_matrix_mult": True}).encode()
    tensors[MARKER] = torch.tensor(list(marker), dtype=torch.uint8)
    tensors["pre_quant_scale"] = scale
    source = decoded(StateDictSource({f"l.{name}": t.clone() for name, t in tensors.items()}))
    wanted = inputs @ source.load("l.weight").T
    layer = comfy.ops.mixed_precision_ops({}, torch.float32).Linear(128, 64, bias=False)
    layer.load_state_dict(tensors)
    found = layer(inputs)
    return float((found - wanted).norm() / wanted.norm())


if __name__ == "__main__":
    results = {
        "diffusers": {kind: put_together(kind) for kind in PAIRS},
        "pre_quant_scale": scaled_inputs(),
    }
    result_path.write_text(json.dumps(results))
