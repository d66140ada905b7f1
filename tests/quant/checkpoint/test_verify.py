"""``verify`` finds and names every kind of damage, and finds none in a sound file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.checkpoint.digests import without_digests
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.planning import Recipe, make_plan, parse_rule_lines, take_inventory
from nvfp4_foundry.quant.sources import open_source
from safetensors import safe_open
from safetensors.torch import load_file, save_file

Toy = Callable[..., dict[str, torch.Tensor]]
Tensors = dict[str, torch.Tensor]
Metadata = dict[str, str]
RULES = """
*.ffn.2 @ any = float8_e4m3fn
*.self_attn.o = nvfp4_w4a16
blocks.*.*_attn.? = nvfp4
blocks.*.ffn.0 = nvfp4
"""
Q, W4A16, F8 = "blocks.1.self_attn.q", "blocks.1.self_attn.o", "blocks.2.ffn.2"


@pytest.fixture
def files(tmp_path: Path, toy_wan: Toy) -> tuple[Path, Path]:
    """Return a sound checkpoint and its source."""
    source, target = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    save_file(toy_wan(), source)
    with open_source(source) as opened:
        recipe = Recipe(rules=parse_rule_lines(RULES))
        convert(opened, make_plan(recipe, take_inventory(opened)), target)
    return target, source


def contents(path: Path) -> tuple[Tensors, Metadata]:
    with safe_open(path, "pt") as file:
        return load_file(path), without_digests(file.metadata())


def header_markers(metadata: Metadata) -> dict[str, dict[str, object]]:
    return json.loads(metadata["_quantization_metadata"])["layers"]


def test_a_sound_file_has_no_problem(files: tuple[Path, Path]) -> None:
    target, source = files
    alone, compared = verify_checkpoint(target), verify_checkpoint(target, source)
    for result in (alone, compared):
        assert result.problems == ()
        assert result.ok
        assert result.quantized == 40
        assert result.layers == 46 + 1 + 4 * 6 + 1
    assert [alone.compared_with_source, compared.compared_with_source] == [False, True]
    assert compared.to_json()["ok"] is True


def test_progress_reaches_the_end(files: tuple[Path, Path]) -> None:
    seen: list[tuple[int, int, str]] = []
    verify_checkpoint(*files, on_progress=lambda *step: seen.append(step))
    assert len(seen) == 72
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1][0] == seen[-1][1]


def flip_half(tensors: Tensors, name: str) -> None:
    data = tensors[name].view(torch.uint8).reshape(-1)
    data[: len(data) // 2] ^= 0xFF


def flip_some(tensors: Tensors, name: str, count: int) -> None:
    tensors[name].view(torch.uint8).reshape(-1)[:count] ^= 0xFF


def swap(tensors: Tensors, a: str, b: str) -> None:
    tensors[a], tensors[b] = tensors[b], tensors[a]


def swap_layers(tensors: Tensors, a: str, b: str) -> None:
    for suffix in ("weight", "weight_scale", "weight_scale_2"):
        swap(tensors, f"{a}.{suffix}", f"{b}.{suffix}")


def nan_in(tensors: Tensors, name: str) -> None:
    tensors[name].view(torch.uint8).reshape(-1)[5] = 0x7F


def set_marker(tensors: Tensors, layer: str, text: bytes) -> None:
    tensors[f"{layer}.comfy_quant"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)


def announce(metadata: Metadata, layer: str, marker: dict[str, object] | None) -> None:
    data = json.loads(metadata["_quantization_metadata"])
    data["layers"].pop(layer)
    if marker is not None:
        data["layers"][layer] = marker
    metadata["_quantization_metadata"] = json.dumps(data)


def forget_quantization(tensors: Tensors, metadata: Metadata, layer: str) -> None:
    announce(metadata, layer, None)
    del tensors[f"{layer}.comfy_quant"]


Damage = Callable[[Tensors, Metadata], object]
#: The damage, the layer to name, and whether the damage shows without the source.
DAMAGES: dict[str, tuple[Damage, str, bool]] = {
    "bytes of a weight": (lambda t, m: flip_half(t, f"{Q}.weight"), Q, False),
    "16 bytes of a weight": (lambda t, m: flip_some(t, f"{Q}.weight", 16), Q, False),
    "2 bytes of a float8 weight": (lambda t, m: flip_some(t, f"{F8}.weight", 2), F8, False),
    "a bit of a float8 weight": (
        lambda t, m: t[f"{F8}.weight"].view(torch.uint8)[3].bitwise_xor_(0x08), F8, False),
    "w4a16 weight": (lambda t, m: flip_half(t, f"{W4A16}.weight"), W4A16, False),
    "nibbles swapped": (
        lambda t, m: t.update({f"{Q}.weight": (t[f"{Q}.weight"] >> 4) | (t[f"{Q}.weight"] << 4)}),
        Q, False),
    "two layers swapped": (
        lambda t, m: swap_layers(t, Q, "blocks.2.self_attn.q"), "blocks.2.self_attn.q", False),
    "weights of two layers swapped": (
        lambda t, m: swap(t, f"{Q}.weight", "blocks.1.self_attn.k.weight"), Q, False),
    "block scales swapped": (
        lambda t, m: swap(t, f"{Q}.weight_scale", f"{W4A16}.weight_scale"), Q, False),
    "block scales not swizzled": (
        lambda t, m: t.update(
            {f"{Q}.weight_scale": t[f"{Q}.weight_scale"].t().contiguous().view(128, -1)}),
        Q, False),
    "tensor scale off by 2%": (lambda t, m: t[f"{Q}.weight_scale_2"].mul_(1.02), Q, False),
    "float8 scale off by 10%": (lambda t, m: t[f"{F8}.weight_scale"].mul_(1.1), F8, False),
    "weight gone": (lambda t, m: t.pop(f"{Q}.weight"), Q, True),
    "block scales gone": (lambda t, m: t.pop(f"{Q}.weight_scale"), Q, True),
    "tensor scale gone": (lambda t, m: t.pop(f"{Q}.weight_scale_2"), Q, True),
    "float8 scale gone": (lambda t, m: t.pop(f"{F8}.weight_scale"), F8, True),
    "scale shape": (
        lambda t, m: t.update({f"{Q}.weight_scale": t[f"{Q}.weight_scale"][:64].contiguous()}),
        Q, True),
    "scale with one dimension": (
        lambda t, m: t.update({f"{Q}.weight_scale_2": t[f"{Q}.weight_scale_2"].view(1)}), Q, True),
    "scale dtype": (
        lambda t, m: t.update({f"{F8}.weight_scale": t[f"{F8}.weight_scale"].bfloat16()}),
        F8, True),
    "weight shape": (
        lambda t, m: t.update({f"{Q}.weight": t[f"{Q}.weight"][:32].contiguous()}), Q, True),
    "NaN block scale": (lambda t, m: nan_in(t, f"{Q}.weight_scale"), Q, True),
    "NaN tensor scale": (lambda t, m: t[f"{Q}.weight_scale_2"].fill_(torch.nan), Q, True),
    "infinite tensor scale": (lambda t, m: t[f"{F8}.weight_scale"].fill_(torch.inf), F8, True),
    "negative tensor scale": (lambda t, m: t[f"{Q}.weight_scale_2"].neg_(), Q, True),
    "zero tensor scale": (lambda t, m: t[f"{Q}.weight_scale_2"].zero_(), Q, True),
    "zero float8 scale": (lambda t, m: t[f"{F8}.weight_scale"].zero_(), F8, True),
    "NaN weight": (lambda t, m: nan_in(t, f"{F8}.weight"), F8, True),
    "NaN input scale": (
        lambda t, m: t.update({f"{Q}.input_scale": torch.tensor(torch.nan)}), Q, True),
    "zero input scale": (
        lambda t, m: t.update({f"{Q}.input_scale": torch.tensor(0.0)}), Q, True),
    "bf16 input scale": (
        lambda t, m: t.update({f"{Q}.input_scale": torch.tensor(1.0).bfloat16()}), Q, True),
    "marker gone": (lambda t, m: t.pop(f"{Q}.comfy_quant"), Q, True),
    "marker gone everywhere": (
        lambda t, m: forget_quantization(t, m, Q), Q, True),
    "float8 marker gone everywhere": (
        lambda t, m: forget_quantization(t, m, F8), F8, True),
    "marker says float8": (
        lambda t, m: set_marker(t, Q, b'{"format": "float8_e4m3fn"}'), Q, True),
    "marker says w4a16": (
        lambda t, m: set_marker(
            t, Q, b'{"format": "nvfp4", "full_precision_matrix_mult": true}'), Q, True),
    "header says w4a16": (
        lambda t, m: announce(
            m, Q, {"format": "nvfp4", "full_precision_matrix_mult": True}), Q, True),
    "unknown format": (
        lambda t, m: (set_marker(t, Q, b'{"format": "nf4"}'), announce(m, Q, {"format": "nf4"})),
        Q, True),
    "marker is no JSON": (lambda t, m: set_marker(t, Q, b"nvfp4"), Q, True),
    "marker without format": (lambda t, m: set_marker(t, Q, b'{"fmt": 1}'), Q, True),
    "header lacks the layer": (lambda t, m: announce(m, Q, None), Q, True),
    "header names a layer that is not there": (
        lambda t, m: m.update(
            _quantization_metadata=m["_quantization_metadata"].replace(Q, "nowhere.q")),
        "nowhere.q", True),
    "bias changed": (lambda t, m: t[f"{Q}.bias"][3].add_(1), Q, False),
    "bias gone": (lambda t, m: t.pop(f"{Q}.bias"), Q, True),
    "norm changed": (lambda t, m: t["blocks.0.norm3.weight"][0].neg_(), "blocks.0.norm3", False),
    "parameter changed": (lambda t, m: t["head.modulation"].add_(1), "head.modulation", False),
    "kept Linear changed": (lambda t, m: t["head.head.weight"][0, 0].add_(1), "head.head", False),
    "kept Linear reshaped": (
        lambda t, m: t.update({"head.head.weight": t["head.head.weight"].view(-1)}),
        "head.head", False),
    "tensor gone": (lambda t, m: t.pop("blocks.3.modulation"), "blocks.3.modulation", True),
    "tensor added": (lambda t, m: t.update(extra=torch.ones(1)), "extra", False),
    "scale without weight added": (
        lambda t, m: t.update({"head.head.weight_scale": torch.ones(())}), "head.head", True),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_named(files: tuple[Path, Path], damage: str) -> None:
    target, source = files
    change, layer, shows_alone = DAMAGES[damage]
    tensors, metadata = contents(target)
    change(tensors, metadata)
    save_file(tensors, target, metadata)
    result = verify_checkpoint(target, source)
    assert not result.ok
    assert any(layer in problem for problem in result.problems), result.problems
    alone = verify_checkpoint(target)
    assert alone.ok is not shows_alone, alone.problems
    if shows_alone:
        assert any(layer in problem for problem in alone.problems), alone.problems


def test_only_the_damaged_layers_are_named(files: tuple[Path, Path]) -> None:
    target, source = files
    tensors, metadata = contents(target)
    flip_half(tensors, f"{Q}.weight")
    tensors["head.modulation"] += 1
    save_file(tensors, target, metadata)
    problems = verify_checkpoint(target, source).problems
    assert [problem.split(":")[0] for problem in sorted(problems)] == [Q, "head.modulation"]


def test_a_file_that_relies_on_the_header_alone_is_valid(files: tuple[Path, Path]) -> None:
    target, source = files
    tensors, metadata = contents(target)
    for layer in header_markers(metadata):
        del tensors[f"{layer}.comfy_quant"]
    save_file(tensors, target, metadata)
    assert verify_checkpoint(target, source).problems == ()


def test_a_file_that_relies_on_marker_tensors_alone_is_valid(files: tuple[Path, Path]) -> None:
    target, source = files
    save_file(contents(target)[0], target)
    result = verify_checkpoint(target, source)
    assert (result.problems, result.quantized) == ((), 40)


def test_prefixed_checkpoints_are_verified(files: tuple[Path, Path]) -> None:
    target, source = files
    tensors, _ = contents(target)
    save_file({f"model.diffusion_model.{n}": t for n, t in tensors.items()}, target)
    assert verify_checkpoint(target, source).problems == ()


def test_another_model_as_source(files: tuple[Path, Path], toy_wan: Toy) -> None:
    target, source = files
    save_file(toy_wan(seed=9), source)
    problems = verify_checkpoint(target, source).problems
    assert len(problems) >= 40
    assert any(problem.startswith(f"{Q}: the decoded weight differs") for problem in problems)


def test_unreadable_metadata_is_a_problem(files: tuple[Path, Path]) -> None:
    target, _ = files
    tensors, metadata = contents(target)
    save_file(tensors, target, {**metadata, "_quantization_metadata": "{"})
    assert "_quantization_metadata is not valid" in verify_checkpoint(target).problems[0]


def test_a_truncated_file_cannot_be_opened(files: tuple[Path, Path]) -> None:
    target, source = files
    target.write_bytes(target.read_bytes()[:-1])
    with pytest.raises(SourceError, match="truncated"):
        verify_checkpoint(target, source)


def test_missing_memory_is_not_taken_for_damage(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"

    def fail(*args: object) -> torch.Tensor:
        raise RuntimeError(message)

    monkeypatch.setattr(get_format("nvfp4"), "decode", fail)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        verify_checkpoint(*files)
    message = "shape '[4]' is invalid for input of size 3"
    assert any(message in problem for problem in verify_checkpoint(*files).problems)


def test_a_damaged_scale_that_no_format_asks_for_is_found(files: tuple[Path, Path]) -> None:
    tensors, metadata = contents(files[0])
    tensors[f"{F8}.weight_scale_2"] = torch.tensor(torch.nan)
    save_file(tensors, files[0], metadata)
    problems = verify_checkpoint(files[0]).problems
    assert [p for p in problems if f"{F8}: weight_scale_2 holds NaN" in p]
