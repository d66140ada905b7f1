"""``nvfp4 verify`` and ``inspect``: a checkpoint read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.helpers.command_line import run, run_json

TINY = str(MODEL_PATH)
Capture = pytest.CaptureFixture[str]


def test_quantize_inspect_verify(quantized: Path, capsys: Capture) -> None:
    code, summary = run_json(capsys, "inspect", quantized)
    assert code == 0
    assert {"name", "kind", "shape", "format", "bytes"} <= set(summary["layers"][0])
    assert summary["total_bytes"] == sum(t.nbytes for t in load_file(quantized).values())
    assert summary["formats"] == {"float8_e4m3fn": 26, "nvfp4": 14, "bf16": 6}
    code, result = run_json(capsys, "verify", quantized, "--source", TINY)
    assert (code, result["ok"], result["problems"]) == (0, True, [])


def test_verify_fails_on_a_damaged_file(quantized: Path, capsys: Capture) -> None:
    tensors = load_file(quantized)
    tensors["blocks.1.self_attn.q.weight"][:64] = 0x77
    with safe_open(quantized, "pt") as file:
        metadata = file.metadata()
    save_file(tensors, quantized, metadata)
    code, result = run_json(capsys, "verify", quantized, "--source", TINY)
    assert code == 1 and not result["ok"]
    assert all("blocks.1.self_attn.q" in problem for problem in result["problems"])


def test_what_completes_a_source_needs_one(capsys: Capture) -> None:
    code, _, error = run(capsys, "verify", "made.safetensors", "--complete-from", "b")
    assert code == 2 and "give both" in error
