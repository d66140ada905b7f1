"""What the tests of several commands need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.calibration import ActivationCollector, save_statistics
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import save_file

from tests.helpers.command_line import run
from tests.helpers.gguf_files import wan_types, write_gguf

TINY = str(MODEL_PATH)
MIXED = ("--preset", "wan2.2-14b", "--setting", "edge_blocks=1")
PATCH = "patch_embedding.weight"
Capture = pytest.CaptureFixture[str]
Toy = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture
def quantized(tmp_path: Path, capsys: Capture) -> Path:
    target = tmp_path / "out.safetensors"
    assert run(capsys, "quantize", TINY, target, *MIXED)[0] == 0
    return target


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    """Statistics of the tiny model with a known amax of 3.5 in every layer."""
    with open_source(TINY) as source:
        root = torch.nn.Module()
        for name, info in source.tensors.items():
            if name.endswith(".weight") and len(info.shape) == 2:
                module = root
                *parents, leaf = name.removesuffix(".weight").split(".")
                for part in parents:
                    if not hasattr(module, part):
                        module.add_module(part, torch.nn.Module())
                    module = getattr(module, part)
                module.add_module(leaf, torch.nn.Linear(info.shape[1], info.shape[0], bias=False))
        collector, generator = ActivationCollector(), torch.Generator().manual_seed(0)
        collector.new_run("known amax")
        with collector.observe(root):
            collector.begin_call(0.5, [0])
            for module in root.modules():
                if isinstance(module, torch.nn.Linear):
                    inputs = torch.rand(1, 8, module.in_features, generator=generator)
                    inputs[0, 3, 5] = -3.5
                    module(inputs)
        path = tmp_path / "stats.safetensors"
        save_statistics(collector.snapshot(source.fingerprint()), path)
    return path


@pytest.fixture
def wan_gguf(toy_wan: Toy, tmp_path: Path) -> tuple[Path, Path]:
    """A WAN GGUF without patch embedding, and the original."""
    tensors = toy_wan()
    original = tmp_path / "original.safetensors"
    save_file(tensors, original)
    lacking = {n: t for n, t in tensors.items() if n != PATCH}
    return write_gguf(tmp_path / "wan.gguf", lacking, wan_types), original
