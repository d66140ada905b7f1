"""8-bit codes whose scales have another name, or are not in the file at all."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import open_source
from nvfp4_foundry.quant.sources.quantized.other_scales import NAMES
from safetensors.torch import save_file

from tests.helpers.conversions import Toy
from tests.helpers.odd_files import BOUNDS, E4M3, E5M2, coded, per_block, per_group, per_row
from tests.helpers.odd_files import per_tensor as whole
from tests.helpers.quantized_files import Tensors, is_linear_in_block

from .conftest import Judge


def inverted(scale: torch.Tensor) -> torch.Tensor:
    return 1 / scale


@pytest.mark.parametrize("name", NAMES)
def test_a_scale_under_another_name_is_applied(judge: Judge, model: Tensors, name: str) -> None:
    error, notes = judge(coded(model, lambda w: whole(w, E4M3), name))
    assert 0.001 < error < BOUNDS[E4M3]
    assert any(f"scales named {name}" in note for note in notes)


@pytest.mark.parametrize("split", [whole, per_row, per_group, per_block])
@pytest.mark.parametrize("dtype", [E4M3, E5M2, torch.int8])
@pytest.mark.parametrize("change", [None, inverted])
def test_values_show_whether_a_scale_divides(
    judge: Judge, model: Tensors, split: object, dtype: torch.dtype, change: object
) -> None:
    """E5M2 codes reach 57344 and int8 codes only 127, but both readings differ by their square."""
    options = {"change": change} if change else {}
    error, notes = judge(coded(model, lambda w: split(w, dtype), "scale", **options))
    assert 0.001 < error < BOUNDS[dtype]
    assert ("1 / scale" in notes[0]) == bool(change)


@pytest.mark.parametrize("factor", [1.0, 5.0])
def test_a_scale_near_one_could_be_either(judge: Judge, model: Tensors, factor: float) -> None:
    """Weights of 200 as well as of 900 are strange, and nothing says which is meant."""
    near_one = coded(
        model, lambda w: whole(w, E4M3), "scale", change=lambda s: torch.full_like(s, factor)
    )
    with pytest.raises(SourceError, match=r"\.scale .*whether it multiplies or divides"):
        judge(near_one)


def test_two_scales_of_one_weight_are_refused(judge: Judge, model: Tensors) -> None:
    tensors = coded(model, lambda w: whole(w, E4M3), "scale")
    tensors |= {n[:-5] + "fp8_scale": t.clone() for n, t in tensors.items() if n.endswith(".scale")}
    with pytest.raises(SourceError, match=r"two scales, .* not known which applies"):
        judge(tensors)


@pytest.mark.parametrize(
    "extra", ["smooth_scale", "weight_absmax", "scale_2", "weight_zero_point", "act_amax"]
)
@pytest.mark.parametrize("suffix", ["weight_scale", "scale_weight", "scale"])
def test_a_further_scale_of_unknown_meaning_is_refused(
    judge: Judge, model: Tensors, suffix: str, extra: str
) -> None:
    tensors = coded(model, lambda w: whole(w, E4M3), suffix)
    tensors[f"blocks.1.ffn.0.{extra}"] = torch.ones(1)
    with pytest.raises(SourceError, match=rf"blocks\.1\.ffn\.0\.{extra}|asymmetric"):
        judge(tensors)


def test_scales_of_the_attention_cache_are_no_scales_of_weights(
    judge: Judge, model: Tensors
) -> None:
    tensors = coded(model, lambda w: whole(w, E4M3), "weight_scale")
    tensors["blocks.1.self_attn.k.k_scale"] = torch.ones(1)
    error, _ = judge(tensors)
    assert error < BOUNDS[E4M3]


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("split", [whole, per_row, per_block])
def test_codes_of_the_whole_range_without_scales_are_refused(
    judge: Judge, model: Tensors, dtype: torch.dtype, split: object
) -> None:
    with pytest.raises(SourceError, match=r"model\.safetensors: .*\.weight and others .*_map\."):
        judge(coded(model, lambda w: split(w, dtype)))


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("size", [0.002, 0.02, 0.5])
def test_plain_casts_are_taken(
    tmp_path: object, toy_wan: Toy, dtype: torch.dtype, size: float
) -> None:
    """Also those with an outlier in one layer, and of a text encoder's large weights."""
    model = {
        name: tensor.float() * (size / 0.05) if is_linear_in_block(name, tensor) else tensor.float()
        for name, tensor in toy_wan(blocks=2).items()
    }
    model["blocks.1.ffn.0.weight"][3, 5] = torch.finfo(dtype).max
    path = f"{tmp_path}/plain.safetensors"
    save_file({n: t.to(dtype) if t.dim() == 2 else t for n, t in model.items()}, path)
    with open_source(path) as source:
        for name, tensor in model.items():
            wanted = tensor.to(dtype).float() if tensor.dim() == 2 else tensor
            assert torch.equal(source.load(name).float(), wanted), name
        assert any("8-bit floats without scales" in note for note in source.notes)


def test_the_sample_of_a_large_layer_is_enough(tmp_path: object) -> None:
    """16 M values, of which 2 M are read. The largest one is 60 times the usual one."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4096, 4096, generator=generator)
    weight[17, 33] = 60.0
    values, _ = whole(weight, E4M3)
    path = f"{tmp_path}/large.safetensors"
    save_file({"l.weight": values, "l.bias": torch.zeros(4096)}, path)
    with pytest.raises(SourceError, match=r"l\.weight are 8-bit floats"):
        open_source(path)


def test_inspect_shows_such_a_file_and_why(tmp_path: object, model: Tensors) -> None:
    path = f"{tmp_path}/bare.safetensors"
    tensors = coded(model, lambda w: whole(w, E4M3))
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    summary = inspect_checkpoint(path)
    assert summary.counts()["float8_e4m3fn"] == 20
    assert "fill the whole range" in summary.refusal


def test_a_file_beside_it_that_may_hold_the_scales_is_named(
    tmp_path: object, judge: Judge, model: Tensors
) -> None:
    save_file({"x": torch.ones(1)}, f"{tmp_path}/other_fp8_map.safetensors")
    with pytest.raises(SourceError, match=r"other_fp8_map\.safetensors.*rename.*model_map\."):
        judge(coded(model, lambda w: whole(w, E4M3)))
