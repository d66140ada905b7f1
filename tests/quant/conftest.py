"""Key lists of real models, and toy models made from them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from nvfp4_foundry.quant.planning import Inventory, inventory_of
from nvfp4_foundry.quant.sources import TensorInfo

# Threads that wait for each other on a busy machine cost more than these small tensors gain.
torch.set_num_threads(1)

Toy = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(scope="session")
def manifests() -> ModuleType:
    """Return tests/data/manifests.py."""
    path = Path(__file__).parents[1] / "data" / "manifests.py"
    spec = importlib.util.spec_from_file_location("manifests", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def inventory_named(manifests: ModuleType) -> Callable[[str], Inventory]:
    """Return a function from a manifest's name to its inventory."""

    def build(name: str, dtype: torch.dtype = torch.bfloat16) -> Inventory:
        shapes = {**manifests.MODELS, **manifests.FAMILIES}[name]()
        markers = {"__index_timestep_zero__"}
        return inventory_of(
            TensorInfo(n, s, torch.float32 if n in markers else dtype) for n, s in shapes.items()
        )

    return build


@pytest.fixture
def toy_wan(manifests: ModuleType) -> Toy:
    """Return a factory of WAN-named models of a few hundred kilobytes, random but seeded."""

    def build(
        seed: int = 0, dtype: torch.dtype = torch.bfloat16, blocks: int = 4, width: int = 64
    ) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shapes = manifests.wan(width, 2 * width, blocks, 16, 16, text=64)
        return {
            name: (torch.randn(shape, generator=generator) * 0.05).to(dtype)
            for name, shape in shapes.items()
        }

    return build
