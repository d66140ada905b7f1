"""Models made up for mixes: their shapes, and sensitivities with errors as given or drawn."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping

import torch
from nvfp4_foundry.quant.fingerprint import ModelFingerprint
from nvfp4_foundry.quant.planning import Inventory, Plan, inventory_of
from nvfp4_foundry.quant.sensitivity.artefact import CandidateErrors, LayerSensitivity, Sensitivity
from nvfp4_foundry.quant.sources import TensorInfo

InventoryNamed = Callable[[str], Inventory]
Costs = Mapping[str, Mapping[str, float | None]]
# Five layers, two of them of one input, one kept by the recipe, one too odd for NVFP4.
SMALL = {"a": (64, 64), "b": (64, 128), "c": (64, 128), "odd": (60, 64), "keep": (64, 64)}
MIXED = ("a", "b", "c", "odd")


def inventory_from(shapes: Mapping[str, tuple[int, int]]) -> Inventory:
    """Return an inventory of Linears in bfloat16."""
    return inventory_of(TensorInfo(f"{n}.weight", s, torch.bfloat16) for n, s in shapes.items())


def sensitivity_of(
    inventory: Inventory,
    costs: Costs,
    inputs: Mapping[str, str] | None = None,
    rounding: str = "weighted",
) -> Sensitivity:
    """Return a sensitivity in which a layer's squared error in a format is as given."""
    layers = {
        name: LayerSensitivity(
            name,
            inventory.layers[name].shape,
            (inputs or {}).get(name),
            {
                fmt: CandidateErrors(w4a4=None if cost is None else math.sqrt(cost))
                for fmt, cost in formats.items()
            },
        )
        for name, formats in costs.items()
    }
    shapes = {la.name: la.shape for la in inventory.of_kind("linear")}
    return Sensitivity(ModelFingerprint(shapes, {}), rounding, layers)


def random_costs(names: Iterable[str], seed: int) -> dict[str, dict[str, float | None]]:
    """Draw squared errors as real layers have them: far apart, less in wider formats."""
    rng = random.Random(seed)
    costs: dict[str, dict[str, float | None]] = {}
    for name in names:
        whole = math.exp(rng.gauss(-9, 1))
        four_bits = {"nvfp4": whole, "nvfp4_w4a16": whole * rng.uniform(0.3, 0.8)}
        costs[name] = {**four_bits, "float8_e4m3fn": whole * rng.uniform(0.02, 0.2)}
    return costs


def shared_inputs(names: Iterable[str]) -> dict[str, str]:
    """Return inputs as attention has them: q, k and v read the same tensor."""
    found = {}
    for name in names:
        parent, _, leaf = name.rpartition(".")
        if leaf in ("q", "k", "v") and parent.endswith("self_attn"):
            found[name] = f"{parent}.x"
        elif leaf in ("k", "v"):
            found[name] = f"{parent}.text"
        elif leaf in ("to_q", "to_k", "to_v"):
            found[name] = f"{parent}.image"
        elif leaf in ("add_q_proj", "add_k_proj", "add_v_proj"):
            found[name] = f"{parent}.words"
    return found


def formats_of(plan: Plan) -> dict[str, str]:
    """Return the format of each layer."""
    return {layer.name: layer.format for layer in plan.layers}
