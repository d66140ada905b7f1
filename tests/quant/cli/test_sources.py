"""``nvfp4`` with sources that are not plain safetensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.sources import StateDictSource
from nvfp4_foundry.quant.sources.wan_names import wan_to_diffusers
from safetensors.torch import load_file, save_file

from tests.helpers.command_line import run, run_json
from tests.helpers.conversions import bits, plan_of
from tests.helpers.gguf_files import wan_types

Toy = Callable[..., dict[str, torch.Tensor]]
PATCH = "patch_embedding.weight"
PRESET = ("--preset", "wan2.2-14b", "--setting", "edge_blocks=1", "--rounding", "max")


def test_a_gguf_from_inspection_to_verification(
    wan_gguf: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, original = wan_gguf
    code, seen = run_json(capsys, "inspect", source)
    assert (code, seen["formats"]) == (0, {"Q4_0": 32, "Q8_0": 8, "fp16": 6})
    code, _, error = run(capsys, "plan", source, *PRESET)
    assert code == 1 and "lacks patch_embedding.weight" in error and "--complete-from" in error
    complete = ("--complete-from", original)
    code, plan = run_json(capsys, "plan", source, *complete, *PRESET)
    dtypes = {layer["name"]: layer["source_dtype"] for layer in plan["layers"]}
    assert dtypes["blocks.1.ffn.0"] == "Q4_0" and dtypes["head.head"] == "float16"
    target = tmp_path / "made.safetensors"
    assert run(capsys, "quantize", source, target, *complete, *PRESET)[0] == 0
    code, result = run_json(capsys, "verify", target, "--source", source, *complete)
    assert (code, result["problems"]) == (0, [])
    assert run(capsys, "compare", original, target)[0] == 0


def test_what_a_gguf_becomes_is_what_its_values_become(
    wan_gguf: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against the same conversion of the values as the package decodes them."""
    source, original = wan_gguf
    decoded = {
        t.name: torch.from_numpy(gguf.dequantize(t.data, t.tensor_type).copy())
        for t in gguf.GGUFReader(source).tensors
    }
    decoded = {n: t.half() if wan_types(n, t) == "F16" else t for n, t in decoded.items()}
    decoded[PATCH] = load_file(original)[PATCH]
    target, reference = tmp_path / "made.safetensors", tmp_path / "reference.safetensors"
    assert run(capsys, "quantize", source, target, "--complete-from", original, *PRESET)[0] == 0
    _, plan = run_json(capsys, "plan", source, "--complete-from", original, *PRESET)
    lines = "\n".join(f"{layer['name']} = {layer['format']}" for layer in plan["layers"])
    plain = StateDictSource(decoded)
    convert(plain, plan_of(plain, lines), reference)
    a, b = load_file(target), load_file(reference)
    assert set(a) == set(b)
    for name, tensor in a.items():
        wanted = b[name]
        if tensor.dtype == torch.bfloat16:  # kept, and decoded wider
            wanted = wanted.bfloat16()
        assert torch.equal(bits(tensor), bits(wanted)), name
    assert a["blocks.1.ffn.0.weight"].dtype == torch.uint8
    assert a["blocks.0.ffn.0.weight"].dtype == torch.float8_e4m3fn  # the edge block
    kept = "time_embedding.0.weight"
    assert a[kept].dtype == torch.float16 and torch.equal(a[kept], decoded[kept])


def test_diffusers_wan_is_converted_and_verified(
    toy_wan: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = toy_wan()
    for name, rename in (("d", wan_to_diffusers), ("c", str)):
        save_file({rename(n): t for n, t in tensors.items()}, tmp_path / f"{name}.safetensors")
        source, target = tmp_path / f"{name}.safetensors", tmp_path / f"{name}_made.safetensors"
        assert run(capsys, "quantize", source, target, *PRESET)[0] == 0
        assert run(capsys, "verify", target, "--source", tmp_path / "d.safetensors")[0] == 0
    a, b = load_file(tmp_path / "d_made.safetensors"), load_file(tmp_path / "c_made.safetensors")
    assert set(a) == set(b) and all(torch.equal(bits(a[n]), bits(b[n])) for n in a)
    assert run(capsys, "compare", tmp_path / "d.safetensors", target)[0] == 0
