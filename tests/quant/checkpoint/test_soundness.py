"""``verify`` finds files that ComfyUI would load as another model, also without their source."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.checkpoint.digests import without_digests
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.formats import FORMATS
from nvfp4_foundry.quant.rounding import ROUNDINGS
from nvfp4_foundry.quant.sources import open_source
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.data.manifests import Manifest, linear, load_key_list
from tests.helpers import quantized_files as qf
from tests.helpers.command_line import run, run_json
from tests.helpers.conversions import Toy, plan_of

Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors], Tensors]


@pytest.fixture
def written(tmp_path: Path, toy_wan: Toy) -> Path:
    source, target = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    save_file(toy_wan(), source)
    with open_source(source) as opened:
        convert(opened, plan_of(opened), target)
    return target


def changed(path: Path, change: Change, prefix: str = "") -> Path:
    """Write the file again with other tensors and a prefix; its header keeps up."""
    with safe_open(path, "pt") as file:
        header = without_digests(file.metadata())
    tensors = change(load_file(path))
    layers = json.loads(header["_quantization_metadata"])["layers"]
    kept = {n: m for n, m in layers.items() if f"{n}.weight" in tensors}
    renamed = {prefix + name: marker for name, marker in kept.items()}
    header["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": renamed})
    save_file({prefix + name: t.contiguous() for name, t in tensors.items()}, path, header)
    return path


def without(*starts: str) -> Change:
    return lambda tensors: {n: t for n, t in tensors.items() if not n.startswith(starts)}


INCOMPLETE = {
    "a block": (without("blocks.1."), "lacks blocks.1,"),
    "the first blocks": (without("blocks.0.", "blocks.1."), "lacks blocks.0, blocks.1,"),
    "a layer of a block": (without("blocks.1.ffn.0."), r"blocks\.1\.ffn\.0\.weight"),
    "a layer of the last block": (without("blocks.3.ffn.0."), r"blocks\.3\.ffn\.0\.weight"),
    "the head": (without("head.head.weight"), "lacks head.head.weight"),
}


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_missing_parts_are_found(written: Path, kind: str) -> None:
    change, message = INCOMPLETE[kind]
    result = verify_checkpoint(changed(written, change))
    (problem,) = [text for text in result.problems if "the model lacks" in text]
    assert re.search(message, problem), problem


@pytest.mark.parametrize(
    ("prefix", "fine"),
    [
        ("", True), ("model.diffusion_model.", True), ("net.", True), ("model.", True),
        ("diffusion_model.", False), ("transformer.", False), ("module.", False),
        ("_orig_mod.", False), ("model._orig_mod.", False),
    ],
)  # fmt: skip
def test_prefixes_that_comfyui_does_not_remove(written: Path, prefix: str, fine: bool) -> None:
    """The rule is that of ComfyUI's ``unet_prefix_from_state_dict``."""
    result = verify_checkpoint(changed(written, dict, prefix))
    assert result.ok is fine, result.problems
    if not fine:
        assert any("ComfyUI would not find" in problem for problem in result.problems)


def test_a_stray_name_that_hides_the_model(written: Path) -> None:
    """Of a file without prefix, ComfyUI would load only what begins with ``model.``."""
    stray = {"model.extra.weight": torch.ones(2)}
    result = verify_checkpoint(changed(written, lambda tensors: {**tensors, **stray}))
    (problem,) = result.problems
    assert "ComfyUI would not find" in problem and "blocks.0" in problem


@pytest.mark.parametrize("kind", ["ModelOpt", "LightX2V", "float8 by rows", "int8 by rows"])
def test_weights_without_markers_are_found(tmp_path: Path, toy_wan: Toy, kind: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({n: t.contiguous() for n, t in qf.MAKERS[kind](toy_wan()).items()}, path)
    result = verify_checkpoint(path)
    assert any("blocks.0" in problem for problem in result.problems), result.problems


def test_codes_that_fill_the_range_are_found(tmp_path: Path, toy_wan: Toy) -> None:
    model = {
        name: (t.float() / t.float().abs().max() * 448).to(torch.float8_e4m3fn)
        if t.dim() == 2
        else t
        for name, t in toy_wan().items()
    }
    path = tmp_path / "model.safetensors"
    save_file(model, path)
    (problem,) = verify_checkpoint(path).problems
    assert "fill the whole range" in problem
    plain = {n: t.to(torch.float8_e4m3fn) if t.dim() == 2 else t for n, t in toy_wan().items()}
    save_file(plain, path)
    assert verify_checkpoint(path).ok


def test_a_scale_of_unknown_meaning_is_found(written: Path) -> None:
    """A scale beside a quantized weight that ComfyUI does not apply."""
    extra = {"blocks.0.ffn.0.weight_scale_3": torch.ones(1)}
    result = verify_checkpoint(changed(written, lambda tensors: {**tensors, **extra}))
    assert any("weight_scale_3" in problem for problem in result.problems), result.problems


def quantized_with(shapes: Manifest, layers: dict[str, str]) -> Tensors:
    """Return a model with some layers quantized by force, as a careless tool would."""
    generator = torch.Generator().manual_seed(3)
    tensors = {
        n: (torch.randn(s, generator=generator) * 0.05).to(torch.bfloat16)
        for n, s in shapes.items()
    }
    for layer, name in layers.items():
        fmt, weight = FORMATS[name], tensors.pop(f"{layer}.weight")
        parts = fmt.encode(weight, ROUNDINGS["max"]).tensors
        tensors |= {f"{layer}.{suffix}": part for suffix, part in parts.items()}
        marker = bytearray(fmt.marker_bytes(tuple(weight.shape)))
        tensors[f"{layer}.comfy_quant"] = torch.frombuffer(marker, dtype=torch.uint8)
    return tensors


def flux(width: int = 256) -> Manifest:
    found = linear("img_in", 64, width) | linear("txt_in", 512, width)
    found |= linear("vector_in.in_layer", 256, width) | linear("vector_in.out_layer", width, width)
    found |= linear("time_in.in_layer", 256, width) | linear("time_in.out_layer", width, width)
    found |= linear("guidance_in.in_layer", 256, width)
    found |= linear("guidance_in.out_layer", width, width)
    found |= linear("final_layer.linear", width, 64)
    found |= linear("final_layer.adaLN_modulation.1", width, 2 * width)
    for block in (f"double_blocks.{i}" for i in range(3)):
        for side in ("img", "txt"):
            found |= linear(f"{block}.{side}_attn.qkv", width, 3 * width)
            found |= linear(f"{block}.{side}_attn.proj", width, width)
            found |= linear(f"{block}.{side}_mlp.0", width, 4 * width)
            found |= linear(f"{block}.{side}_mlp.2", 4 * width, width)
            found |= linear(f"{block}.{side}_mod.lin", width, 6 * width)
            for norm in ("query_norm", "key_norm"):
                found[f"{block}.{side}_attn.norm.{norm}.scale"] = (128,)
    for block in (f"single_blocks.{i}" for i in range(3)):
        found |= linear(f"{block}.linear1", width, 7 * width)
        found |= linear(f"{block}.linear2", 5 * width, width)
        found |= linear(f"{block}.modulation.lin", width, 3 * width)
        for norm in ("query_norm", "key_norm"):
            found[f"{block}.norm.{norm}.scale"] = (128,)
    return found


def test_a_packed_shape_that_detection_reads(tmp_path: Path) -> None:
    path = tmp_path / "flux.safetensors"
    save_file(quantized_with(flux(), {"double_blocks.0.img_mlp.0": "nvfp4"}), path)
    assert verify_checkpoint(path).problems == ()
    save_file(quantized_with(flux(), {"txt_in": "nvfp4"}), path)
    (problem,) = verify_checkpoint(path).problems
    assert problem.startswith("txt_in: ComfyUI recognises the model by the shape of this weight")
    save_file(quantized_with(flux(), {"txt_in": "float8_e4m3fn"}), path)
    assert verify_checkpoint(path).problems == ()  # it keeps the shape


def test_a_matrix_that_is_no_linear(tmp_path: Path) -> None:
    """HiDream's gate is a bare parameter, which ComfyUI never decodes."""
    full = load_key_list("hidream-i1")
    gate = next(n for n in full if n.endswith("gate.weight") and len(full[n]) == 2)
    small = {n: tuple(min(d, 64) for d in s) for n, s in full.items()}
    path = tmp_path / "hidream.safetensors"
    layer = gate.removesuffix(".weight")
    save_file(quantized_with(small, {layer: "float8_e4m3fn"}), path)
    problems = verify_checkpoint(path).problems
    assert any(p.startswith(f"{layer}: ") and "is no Linear" in p for p in problems), problems


def test_the_notes_of_newer_formats(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify_checkpoint(written).notes == ()
    monkeypatch.setattr(type(FORMATS["nvfp4"]), "needs_comfyui", (0, 33), raising=False)
    result = verify_checkpoint(written)
    assert result.ok and "nvfp4 needs ComfyUI 0.33 or newer" in result.notes
    code, out, _ = run(capsys, "verify", written)
    assert code == 0 and "note: nvfp4 needs ComfyUI 0.33 or newer" in out
    _, data = run_json(capsys, "verify", written)
    assert "nvfp4 needs ComfyUI 0.33 or newer" in data["notes"]


def test_a_whole_checkpoint_keeps_only_names_that_comfyui_reads(
    tmp_path: Path, toy_wan: Toy
) -> None:
    path, target = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    for prefix, fine in (("model.diffusion_model.", True), ("diffusion_model.", False)):
        named = {prefix + name: tensor for name, tensor in toy_wan().items()}
        save_file({**named, "first_stage_model.a": torch.ones(2)}, path)
        with open_source(path) as source:
            if fine:
                convert(source, plan_of(source), target, whole_file=True)
                assert verify_checkpoint(target, path).problems == ()
                target.unlink()
                continue
            with pytest.raises(SourceError, match="leave out --whole-checkpoint") as refused:
                convert(source, plan_of(source), target, whole_file=True)
            assert refused.value.remedy is not None
            assert not target.exists()
