"""Flux and Z-Image with the names of diffusers: put together as ComfyUI has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.planning import detect_architecture, take_inventory
from nvfp4_foundry.quant.sources import open_source, open_to_look
from safetensors.torch import save_file

from tests.helpers.conversions import plan_of
from tests.helpers.diffusers_files import PAIRS, Tensors
from tests.helpers.odd_files import BOUNDS, E4M3, per_tensor


def saved(path: Path, tensors: Tensors) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


@pytest.mark.parametrize("kind", PAIRS)
def test_every_tensor_is_that_of_comfyuis_names(tmp_path: Path, kind: str) -> None:
    model, theirs = PAIRS[kind]
    with open_source(saved(tmp_path / "model.safetensors", theirs)) as source:
        assert set(source.tensors) == set(model)
        for name, wanted in model.items():
            info = source.info(name)
            assert (info.shape, info.dtype) == (tuple(wanted.shape), wanted.dtype), name
            assert torch.equal(source.load(name), wanted), name
            length = min(wanted.numel(), 3 * wanted.shape[-1])
            starts = [0, (wanted.numel() - length) // 3, wanted.numel() - length]
            runs = torch.stack([wanted.flatten()[s : s + length] for s in starts])
            assert torch.equal(source.load_runs(name, starts, length), runs), name
        architecture = detect_architecture(take_inventory(source))
        wanted_id = {"Flux.2": "flux2", "Z-Image": "z-image"}.get(kind, "flux1")
        assert architecture.id == wanted_id or kind == "Z-Image"
        assert any(f"{kind.split()[0]} with the names of diffusers" in n for n in source.notes)


@pytest.mark.parametrize("kind", [kind for kind in PAIRS if kind != "Z-Image"])
def test_shards_of_a_pipeline_become_a_checkpoint(tmp_path: Path, kind: str) -> None:
    model, theirs = PAIRS[kind]
    folder = tmp_path / "transformer"
    folder.mkdir()
    names = list(theirs)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        saved(folder / file, {name: theirs[name] for name in part})
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "x.safetensors.index.json").write_text(json.dumps(index))
    target = tmp_path / "out.safetensors"
    with open_source(tmp_path) as source:
        rules = "*.qkv = nvfp4\n*.linear1 = nvfp4\n*_mlp.0 = float8_e4m3fn"
        report = convert(source, plan_of(source, rules), target)
    assert {layer.format for layer in report.layers} > {"nvfp4"}
    with open_source(target) as result:
        for name, wanted in model.items():
            got, wanted = result.load(name).float(), wanted.float()
            if result.stored_weight(name) is None:
                assert torch.equal(got, wanted), name
            else:
                assert (got - wanted).norm() / wanted.norm() < 0.12, name


@pytest.mark.parametrize("kind", PAIRS)
def test_quantized_parts_are_decoded_and_put_together(tmp_path: Path, kind: str) -> None:
    """The projections of one matrix have scales of their own. One may be unquantized."""
    model, theirs = PAIRS[kind]
    coded = dict(theirs)
    for name in (n for n, t in theirs.items() if n.endswith(".weight") and t.dim() == 2):
        if "to_k." not in name:
            coded[name], coded[f"{name}_scale"] = per_tensor(theirs[name].float(), E4M3)
    with open_source(saved(tmp_path / "model.safetensors", coded)) as source:
        for name, wanted in model.items():
            got, wanted = source.load(name).float(), wanted.float()
            stored = source.stored_weight(name)
            assert (got - wanted).norm() / wanted.norm() < BOUNDS[E4M3], name
            assert (stored is None) == (source.info(name).stored is None), name
            if stored is not None:
                assert torch.equal(stored.decode(), got), name
                start, length = wanted.shape[1] * (wanted.shape[0] // 3) - 5, 3 * wanted.shape[1]
                run = source.load_runs(name, [start], length)[0].float()
                assert torch.equal(run, got.flatten()[start : start + length]), name
        fused = next(n for n in source.tensors if "txt_attn" not in n and "qkv" in n)
        stored = source.stored_weight(fused)
        assert stored is not None and stored.kept_as == "" and len(stored.names) == 4
        assert source.nbytes <= (tmp_path / "model.safetensors").stat().st_size


@pytest.mark.parametrize("kind", PAIRS)
def test_a_missing_projection_is_named(tmp_path: Path, kind: str) -> None:
    _, theirs = PAIRS[kind]
    lost = next(name for name in reversed(theirs) if name.endswith("to_v.weight"))
    path = saved(tmp_path / "m.safetensors", {n: t for n, t in theirs.items() if n != lost})
    with pytest.raises(SourceError, match=r"of the [34] parts of .* it has only .*fetch all"):
        open_source(path)
    with open_to_look(path) as source:
        assert set(source.tensors) == set(theirs) - {lost}


@pytest.mark.parametrize("kind", PAIRS)
def test_a_tensor_without_a_place_is_named(tmp_path: Path, kind: str) -> None:
    """A control branch, an adapter, or a newer variant: nothing of it is left out in silence."""
    _, theirs = PAIRS[kind]
    path = saved(tmp_path / "m.safetensors", {**theirs, "siglip.0.weight": torch.ones(2)})
    with pytest.raises(SourceError, match=r"m\.safetensors is .*siglip\.0\.weight has no place"):
        open_source(path)


def test_parts_of_two_dtypes_keep_their_values(tmp_path: Path) -> None:
    model, theirs = PAIRS["Flux.1 dev"]
    name = "transformer_blocks.0.attn.to_q.weight"
    mixed = {**theirs, name: theirs[name].half()}
    with open_source(saved(tmp_path / "m.safetensors", mixed)) as source:
        fused = "double_blocks.0.img_attn.qkv.weight"
        assert source.info(fused).dtype == torch.float32
        wanted = model[fused].float()
        wanted[:64] = theirs[name].half().float()
        assert torch.equal(source.load(fused), wanted)
