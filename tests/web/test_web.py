"""The browser half: its own tests, its types, and its rule lines as the pack reads them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.planning.inventory import BlockPosition, Layer
from nvfp4_foundry.quant.planning.rule_lines import parse_rule_line
from nvfp4_foundry.quant.sources.base import TensorInfo

from .node import ROOT, WEB_TESTS, npm_command, run_node


def test_modules_pass_their_own_tests() -> None:
    tests = sorted(str(path) for path in WEB_TESTS.glob("*.test.js"))
    assert tests
    done = run_node("--test", *tests)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fail 0" in done.stdout


def test_types_are_consistent(pytestconfig: pytest.Config) -> None:
    compiler = _compiler(Path(pytestconfig.cache.mkdir("typescript")))  # type: ignore[union-attr]
    done = run_node(str(compiler), "-p", "tests/web/tsconfig.json")
    assert done.returncode == 0, done.stdout


def test_types_cover_every_module() -> None:
    included = json.loads((WEB_TESTS / "tsconfig.json").read_text(encoding="utf-8"))["include"]
    assert "../../web/view/**/*.js" in included
    for path in (ROOT / "web/view").glob("*.js"):
        assert "@ts-nocheck" not in path.read_text(encoding="utf-8"), path.name


@pytest.fixture(scope="module")
def models() -> list[dict[str, Any]]:
    done = run_node("tests/web/rule_cases.mjs")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("model", range(4), ids=["qwen-image", "flux", "wan", "hostile"])
def test_rule_lines_match_what_was_chosen(models: list[dict[str, Any]], model: int) -> None:
    layers = [
        _layer(layer, kind)
        for layer, kind in zip(models[model]["layers"], models[model]["kinds"], strict=True)
    ]
    for case in models[model]["cases"]:
        rules = [parse_rule_line(line) for line in case["lines"]]
        assert all(rule.format == case["format"] for rule in rules)
        decided = [i for i, layer in enumerate(layers) if any(r.matches(layer) for r in rules)]
        left_out = set(case["left_out"])
        assert decided == [i for i in case["chosen"] if i not in left_out], case["lines"]


def _layer(data: dict[str, Any], kind: Any) -> Layer:
    """Return a layer of the inventory for one that the view placed."""
    inside = data["block"] >= 0
    position = BlockPosition(data["list"], data["block"], data["count"]) if inside else None
    tensor = TensorInfo(f"{data['name']}.weight", (64, 64), torch.bfloat16)
    return Layer(data["name"], kind, tensor, block=position)


def _compiler(folder: Path) -> Path:
    """Return TypeScript's compiler of the locked version. Install it into ``folder`` once."""
    compiler = folder / "node_modules/typescript/bin/tsc"
    lock = folder / "package-lock.json"
    wanted = (WEB_TESTS / "package-lock.json").read_bytes()
    if compiler.is_file() and lock.is_file() and lock.read_bytes() == wanted:
        return compiler
    npm = npm_command()
    if npm is None:
        pytest.skip("TYPES OF THE BROWSER HALF ARE NOT CHECKED: there is no npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(WEB_TESTS / name, folder / name)
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"TYPES OF THE BROWSER HALF ARE NOT CHECKED: npm ci failed: {reason}")
    return compiler
