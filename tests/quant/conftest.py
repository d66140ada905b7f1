"""Key lists of real models, and toy models made from them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from nvfp4_foundry.quant.planning import Inventory, inventory_of
from nvfp4_foundry.quant.sources import TensorInfo

from tests.data import manifests as key_list_manifests
from tests.helpers import nvfp4_reference as reference

# Threads that wait for each other on a busy machine cost more than these small tensors gain.
torch.set_num_threads(1)

Toy = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(scope="session")
def manifests() -> ModuleType:
    """Return tests/data/manifests.py."""
    return key_list_manifests


@pytest.fixture(scope="session")
def nvfp4_reference() -> ModuleType:
    """Return nvfp4_reference.py."""
    return reference


@pytest.fixture(scope="session")
def inventory_named(manifests: ModuleType) -> Callable[[str], Inventory]:
    """Return a function from a manifest's name to its inventory."""

    def build(name: str, dtype: torch.dtype = torch.bfloat16) -> Inventory:
        shapes = manifests.shapes_of(name)
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


class ToyBlock(torch.nn.Module):
    """q, k and v share an input; every layer can be NVFP4."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (torch.nn.Linear(32, 32) for _ in range(4))
        self.ffn = torch.nn.Sequential(
            torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 32)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 1.5
        x = x + self.o(self.q(y) * self.k(y).tanh() + self.v(y))
        return x + self.ffn(x * 0.5)


class ToyModel(torch.nn.Module):
    """Blocks between two layers outside of them; ``head`` is too narrow for NVFP4."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(32)
        self.embed = torch.nn.Linear(32, 32, bias=False)
        self.blocks = torch.nn.ModuleList(ToyBlock() for _ in range(blocks))
        self.head = torch.nn.Linear(32, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(self.norm(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture
def toy_model() -> ToyModel:
    """A model of 20 Linears that runs, random but seeded."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return ToyModel().eval()
