"""A new format with scales is one new file and one entry in the registry."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH

ROOT = Path(__file__).parents[3]
LAYER = "blocks.1.ffn.0"

#: Six-bit integers, a scale per 32 channels: a format that nobody has.
NEW_FORMAT = """
from collections.abc import Mapping

import torch

from .base import EncodedWeight, TensorSpec, WeightFormat, require_finite, tensor_amax

GROUP, LARGEST = 32, 31.0


class Int6Grouped(WeightFormat):
    name = "int6_grouped"
    bits = 9.0
    marker = {"format": "int6_grouped", "group": GROUP}
    error_bound = 0.2
    native_from = (7, 5)

    def refusal(self, shape):
        return None if len(shape) == 2 and shape[1] % GROUP == 0 else "it needs whole groups"

    def tensor_specs(self, shape, source_dtype):
        return {
            "weight": TensorSpec(tuple(shape), torch.int8),
            "group_scales": TensorSpec((shape[0], shape[1] // GROUP), torch.float32),
        }

    def encode(self, weight, rule, *, measure_error=False):
        require_finite(tensor_amax(weight))
        groups = weight.float().view(weight.shape[0], -1, GROUP)
        widest = groups.abs().amax(-1).clamp(min=1e-30) / LARGEST
        ratios = (1.0, 0.95, 0.9) if rule.searches else (1.0,)
        best, least = widest, torch.full_like(widest, torch.inf)
        for ratio in ratios:
            scale = (widest * ratio).unsqueeze(-1)
            rounded = (groups / scale).round().clamp(-LARGEST, LARGEST) * scale
            error = (rounded - groups).square().sum(-1)
            best = torch.where(error < least, widest * ratio, best)
            least = torch.minimum(least, error)
        codes = (groups / best.unsqueeze(-1)).round().clamp(-LARGEST, LARGEST)
        tensors = {"weight": codes.to(torch.int8).view(weight.shape), "group_scales": best}
        error = None
        if measure_error:
            decoded = self.decode(tensors, tuple(weight.shape))
            error = float((decoded - weight.float()).norm() / weight.float().norm())
        return EncodedWeight(tensors, error)

    def decode(self, tensors, shape, rows=None):
        rows = rows or slice(0, shape[0])
        groups = tensors["weight"][rows].float().view(-1, shape[1] // GROUP, GROUP)
        return (groups * tensors["group_scales"][rows].unsqueeze(-1)).view(-1, shape[1])
"""


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package that has one more format."""
    folder = tmp_path_factory.mktemp("site") / "nvfp4_foundry"
    without_caches = shutil.ignore_patterns("__pycache__")
    for part in ("quant", "presets", "demo"):
        shutil.copytree(ROOT / part, folder / part, ignore=without_caches)
    shutil.copy(ROOT / "__init__.py", folder)
    before = files_below(folder)
    formats = folder / "quant" / "formats"
    (formats / "int6_grouped.py").write_text(NEW_FORMAT, encoding="utf-8")
    registry = (formats / "registry.py").read_text(encoding="utf-8")
    registry = registry.replace("from .mxfp8", "from .int6_grouped import Int6Grouped\nfrom .mxfp8")
    registry = registry.replace("        MXFP8(),\n", "        MXFP8(),\n        Int6Grouped(),\n")
    (formats / "registry.py").write_text(registry, encoding="utf-8")
    after = files_below(folder)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"quant/formats/int6_grouped.py", "quant/formats/registry.py"}
    return folder


def nvfp4(package: Path, *arguments: object) -> Any:
    """Run a command of the copy; return the JSON it prints."""
    script = "import sys; from nvfp4_foundry.quant.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments), "--json"],
        cwd=package.parent,
        env={"PYTHONPATH": str(package.parent), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_everything_knows_a_new_format(package: Path, tmp_path: Path) -> None:
    target = tmp_path / "quantized.safetensors"
    options = ("--preset", "all", "--set", f"{LAYER}=int6_grouped")
    plan = nvfp4(package, "plan", MODEL_PATH, *options)
    assert {la["name"]: la["format"] for la in plan["layers"]}[LAYER] == "int6_grouped"
    report = nvfp4(package, "quantize", MODEL_PATH, target, *options)
    layer = next(la for la in report["layers"] if la["name"] == LAYER)
    assert layer["format"] == "int6_grouped" and 0 < layer["weight_error"] < 0.05
    assert nvfp4(package, "verify", target, "--source", MODEL_PATH)["ok"]
    summary = nvfp4(package, "inspect", target)
    assert {la["name"]: la["format"] for la in summary["layers"]}[LAYER] == "int6_grouped"
    comparison = nvfp4(package, "compare", MODEL_PATH, target)
    assert any(la["format_b"] == "int6_grouped" for la in comparison["layers"])
    machine = nvfp4(package, "doctor")
    assert any(found["format"] == "int6_grouped" for found in machine["formats"])
    again = nvfp4(package, "quantize", target, tmp_path / "again.safetensors", *options)
    layer = next(la for la in again["layers"] if la["name"] == LAYER)
    assert layer["rounding"] == "source" and layer["weight_error"] == 0
