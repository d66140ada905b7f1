"""Patches of every kind against float64 by hand: ``python merged_tiny_wan.py RESULT.json``.

Runs in ComfyUI's Python with ComfyUI's folder as ``PYTHONPATH``. The result holds, for each kind
of patch and each state of the MODEL, the largest error relative to the largest value.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

result_path = Path(sys.argv[1])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.hooks  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402
import torch  # noqa: E402
from comfy.weight_adapter.lokr import LoKrAdapter  # noqa: E402
from comfy.weight_adapter.lora import LoRAAdapter  # noqa: E402
from foundry_package import import_foundry  # noqa: E402

import_foundry()

from nvfp4_foundry.demo.model import MODEL_PATH  # noqa: E402
from nvfp4_foundry.nodes.bridge.model_source import ModelSource  # noqa: E402
from nvfp4_foundry.quant.sources import open_source  # noqa: E402

Q, BIAS, FFN = (f"blocks.1.{name}" for name in ("self_attn.q.weight", "ffn.0.bias", "ffn.0.weight"))
PREFIX = "diffusion_model."
generator = torch.Generator().manual_seed(0)


def random(*shape: int) -> torch.Tensor:
    """Small half-precision numbers, as LoRA files hold."""
    return (0.01 * torch.randn(shape, generator=generator)).half()


UP, DOWN, CHANGE, THIRD = random(256, 4), random(4, 256), random(512), random(64, 256)
A, B, WIDE = random(16, 16), random(16, 16), random(512, 320)


def load() -> Any:
    """A fresh MODEL of the demo model."""
    return comfy.sd.load_diffusion_model(str(MODEL_PATH))


def lora(model: Any, strength: float = 0.5) -> None:
    """Rank 4, alpha 2, on one matrix."""
    adapter = LoRAAdapter(set(), (UP, DOWN, 2.0, None, None, None))
    model.add_patches({PREFIX + Q: adapter}, strength)


def lokr(model: Any) -> None:
    """A Kronecker product."""
    adapter = LoKrAdapter(set(), (A, B, None, None, None, None, None, None, None))
    model.add_patches({PREFIX + Q: adapter}, 0.5)


def merge(model: Any) -> None:
    """A third of another model, which has a LoRA of its own, as ModelMergeSimple does it."""
    other = load()
    lora(other, 0.25)
    model.add_patches({PREFIX + Q: other.get_key_patches(PREFIX)[PREFIX + Q]}, 0.3, 0.7)


def slice_of(model: Any) -> None:
    """A difference on some rows, through a function: the tuple form of a key."""
    key = (PREFIX + Q, (0, 32, 64), lambda change: 2 * change)
    model.add_patches({key: ("diff", (THIRD,))}, 0.5)


KINDS: dict[str, tuple[str, Callable[[Any], None], Callable[[torch.Tensor], torch.Tensor]]] = {
    "lora": (Q, lora, lambda w: w + 0.5 * 2 / 4 * (UP.double() @ DOWN.double())),
    "lokr": (Q, lokr, lambda w: w + 0.5 * torch.kron(A.double(), B.double())),
    "bias": (
        BIAS,
        lambda m: m.add_patches({PREFIX + BIAS: ("diff", (CHANGE,))}, 0.5),
        lambda w: w + 0.5 * CHANGE.double(),
    ),
    "set": (
        BIAS,
        lambda m: m.add_patches({PREFIX + BIAS: ("set", (CHANGE,))}),
        lambda w: CHANGE.double(),
    ),
    "merge": (Q, merge, lambda w: w + 0.3 * 0.25 * 2 / 4 * (UP.double() @ DOWN.double())),
    "slice": (
        Q,
        slice_of,
        lambda w: w + torch.nn.functional.pad(THIRD.double(), (0, 0, 32, 160)),
    ),
    "wide": (
        FFN,
        lambda m: m.add_patches({PREFIX + FFN: ("diff", (WIDE, {"pad_weight": True}))}),
        lambda w: torch.nn.functional.pad(w, (0, 64)) + WIDE.double(),
    ),
}


def as_loaded(model: Any) -> None:
    """Nothing has happened to the MODEL."""


def sampled(model: Any) -> None:
    """Patched in place, originals put aside."""
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    assert any(PREFIX + name in model.backup for name in (Q, BIAS, FFN))


def little_memory(model: Any) -> None:
    """Weights stay as they were and are patched as they are used."""
    model.load(torch.device("cpu"), lowvram_model_memory=1)
    layers = [m for m in model.model.modules() if getattr(m, "weight_function", None)]
    layers += [m for m in model.model.modules() if getattr(m, "bias_function", None)]
    assert layers
    assert not model.backup


def hooked(model: Any) -> None:
    """Another LoRA was switched on by a hook, on top."""
    hook = comfy.hooks.WeightHook()
    group = comfy.hooks.HookGroup()
    group.add(hook)
    change = ("diff", (torch.ones(model.model.state_dict()[PREFIX + Q].shape),))
    model.add_hook_patches(hook, {PREFIX + Q: change})
    model.patch_hooks(group)
    assert PREFIX + Q in model.hook_backup


STATES = {f.__name__: f for f in (as_loaded, sampled, little_memory, hooked)}


@torch.inference_mode()
def error(kind: str, state: str, *, from_file: bool) -> float:
    """Largest difference to the float64 expectation, relative to its largest value."""
    name, patch, expected = KINDS[kind]
    with open_source(MODEL_PATH) as file:
        wanted = expected(file.load(name).double())
    model = load()
    patch(model)
    STATES[state](model)
    if not from_file:
        model.cached_patcher_init = None
        model.attachments = {}
    with ModelSource(model) as source:
        merged = source.load(name)
        assert source.info(name).shape == tuple(merged.shape) == tuple(wanted.shape)
        assert merged.dtype == torch.float32
        assert bool(source.paths) == from_file
    return float((merged.double() - wanted).abs().max() / wanted.abs().max())


if __name__ == "__main__":
    errors = {}
    for kind in KINDS:
        errors[f"{kind}, as_loaded, from the file"] = error(kind, "as_loaded", from_file=True)
        for state in STATES:
            errors[f"{kind}, {state}"] = error(kind, state, from_file=False)
    result_path.write_text(json.dumps(errors))
