"""Names with a prefix, and full checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.planning.architectures import known_models
from nvfp4_foundry.quant.sources import StateDictSource, find_prefix, open_source, without_prefix
from safetensors.torch import load_file, save_file

from tests.data.manifests import GENERATED, load_key_list
from tests.helpers.conversions import Toy, plan_of

KNOWN_MODELS = Path(known_models.__file__).with_name("known")
MODEL = {"blocks.0.q.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.full((2,), 7.0)}


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "model.", "net."])
def test_prefixes_are_removed(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({prefix + name: tensor for name, tensor in MODEL.items()}, path, {"kept": "yes"})
    with open_source(path) as source:
        assert set(source.tensors) == set(MODEL)
        assert all(name == info.name for name, info in source.tensors.items())
        assert torch.equal(source.load("blocks.0.q.weight"), MODEL["blocks.0.q.weight"])
        assert source.metadata == {"kept": "yes"}
        assert source.nbytes == 24 + 8
        assert source.notes == (f"layer names are used without their prefix {prefix!r}",)
        with pytest.raises(SourceError, match=f"no tensor named {prefix}"):
            source.load(prefix + "head.bias")


def test_other_parts_of_a_full_checkpoint_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    parts = {"first_stage_model.head.bias": torch.ones(2), "text_encoders.a.b": torch.ones(1)}
    full = {f"model.diffusion_model.{name}": tensor for name, tensor in MODEL.items()}
    save_file({**full, **parts, "text_encoders.c": torch.ones(1)}, path)
    with open_source(path) as source:
        assert set(source.tensors) == set(MODEL)
        for name, tensor in MODEL.items():
            assert torch.equal(source.load(name), tensor)
        assert source.notes[1] == (
            "3 tensors are not part of the diffusion model (first_stage_model, text_encoders)"
        )
        assert source.rest is not None
        assert set(source.rest.tensors) == {*parts, "text_encoders.c"}


@pytest.mark.parametrize("prefix", ["model.", "net."])
def test_a_short_prefix_counts_only_when_all_names_have_it(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {prefix + "a.weight": torch.ones(2), "b.weight": torch.ones(2)}
    save_file(tensors, path)
    with open_source(path) as source:
        assert set(source.tensors) == set(tensors)
        assert source.notes == ()


def test_no_names_have_no_prefix() -> None:
    assert find_prefix({}) == ""


def test_state_dict_source() -> None:
    weight = torch.randn(3, 2, requires_grad=True)
    source = StateDictSource({"a.weight": weight}, "MODEL", {"k": "v"})
    assert (source.description, source.metadata, source.nbytes) == ("MODEL", {"k": "v"}, 24)
    assert source.info("a.weight").shape == (3, 2)
    loaded = source.load("a.weight")
    assert torch.equal(loaded, weight)
    assert not loaded.requires_grad
    with pytest.raises(SourceError, match="MODEL holds no tensor named b"):
        source.load("b")


@pytest.mark.parametrize("first", ["model.embed_tokens", "model.language_model.embed_tokens"])
def test_language_models_keep_their_names(first: str) -> None:
    """All of their names start with ``model.``, by which ComfyUI recognises them."""
    tensors = {f"{first}.weight": torch.ones(4, 2), "model.norm.weight": torch.ones(2)}
    assert find_prefix(StateDictSource(tensors).tensors) == ""


def check_same_model(path: Path, model: dict[str, torch.Tensor]) -> tuple[str, ...]:
    """Check that a file opens with ComfyUI's names and the model's values; return its notes."""
    with open_source(path) as source:
        assert set(source.tensors) == set(model)
        for name, tensor in model.items():
            assert source.info(name).name == name
            assert torch.equal(source.load(name), tensor), name
        return source.notes


WRITTEN_BY_TOOLS = [
    "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.", "dit.", "net.", "model.",
    "model.model.", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.",
    "model._orig_mod.", "module.model.", "transformer._orig_mod.", "module.diffusion_model.",
    "model.diffusion_model._orig_mod.", "ema.", "model_ema.", "ema_model.module.",
    "_fsdp_wrapped_module.", "module.transformer.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", WRITTEN_BY_TOOLS)
def test_prefixes_of_tools_are_removed(tmp_path: Path, toy_wan: Toy, prefix: str) -> None:
    model, path = toy_wan(blocks=2), tmp_path / "model.safetensors"
    save_file({prefix + name: tensor for name, tensor in model.items()}, path)
    notes = " ".join(check_same_model(path, model))
    assert all(part in notes for part in prefix.split(".") if part)
    target = tmp_path / "out.safetensors"
    with open_source(path) as source:
        convert(source, plan_of(source), target)
    assert verify_checkpoint(target, path).problems == ()
    assert set(model) <= set(load_file(target))


@pytest.mark.parametrize("model", GENERATED)
def test_no_model_of_comfyui_seems_to_have_a_prefix(model: str) -> None:
    names = list(load_key_list(model))
    assert find_prefix(names) == ""
    source = StateDictSource({name: torch.ones(()) for name in names})
    assert without_prefix(source) is source
    for prefix in ("model.diffusion_model.", "diffusion_model.", "transformer.", "net.", "module."):
        assert find_prefix([prefix + name for name in names]) == prefix


def test_wrappers_in_the_middle_of_names(tmp_path: Path, toy_wan: Toy) -> None:
    """As torch.compile of single blocks and checkpointing leave them."""
    model, path = toy_wan(), tmp_path / "model.safetensors"

    def wrapped(name: str) -> str:
        parts = name.split(".")
        if parts[0] != "blocks":
            return name
        inner = ".".join(parts[2:])
        return f"blocks.{parts[1]}._checkpoint_wrapped_module._orig_mod.{inner}"

    save_file({wrapped(name): tensor for name, tensor in model.items()}, path)
    check_same_model(path, model)


def test_averages_are_left_out_and_named(tmp_path: Path, toy_wan: Toy) -> None:
    model, average, path = toy_wan(seed=1), toy_wan(seed=2), tmp_path / "model.safetensors"
    for prefix, ema in (("model.", "ema."), ("", "ema."), ("model.diffusion_model.", "model_ema.")):
        named = {prefix + name: tensor for name, tensor in model.items()}
        named |= {ema + name: tensor for name, tensor in average.items()}
        save_file(named, path)
        notes = check_same_model(path, model)
        assert any("running averages of the weights (EMA)" in note for note in notes)
        assert any(f"{len(average)} tensors are not part" in note for note in notes)


def test_a_prefix_of_most_names_takes_the_others_along(tmp_path: Path, toy_wan: Toy) -> None:
    """What begins like the rest of the model belongs to it; a stray tensor is named."""
    model, path = toy_wan(), tmp_path / "model.safetensors"
    bare = {name for name in model if name.startswith(("blocks.2.ffn", "patch_embedding.bias"))}
    other = {name for name in model if name.startswith("blocks.3.norm3")}
    named = {
        ("" if name in bare else "model." if name in other else "net.") + name: tensor
        for name, tensor in model.items()
    }
    save_file({**named, "logvar.freqs": torch.ones(4)}, path)
    notes = check_same_model(path, model)
    assert any(f"{len(bare | other)} tensors lack the prefix" in note for note in notes)
    assert "1 tensors are not part of the diffusion model (logvar)" in notes
    with open_source(path) as source:
        assert source.rest is not None and set(source.rest.tensors) == {"logvar.freqs"}


def test_a_few_prefixed_names_are_no_prefix(tmp_path: Path, toy_wan: Toy) -> None:
    model, path = toy_wan(), tmp_path / "model.safetensors"
    odd = {"blocks.0.norm3.weight", "blocks.0.norm3.bias"}
    for prefix in ("model.diffusion_model.", "net.", "transformer."):
        named = {(prefix if name in odd else "") + name: t for name, t in model.items()}
        save_file(named, path)
        assert find_prefix(named) == ""
        check_same_model(path, model)


def test_one_tensor_by_two_names_is_refused(tmp_path: Path, toy_wan: Toy) -> None:
    model, path = toy_wan(), tmp_path / "model.safetensors"
    named = {f"net.{name}": tensor for name, tensor in model.items()}
    save_file({**named, "blocks.0.ffn.0.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(SourceError, match=r"both with and without a prefix, e\.g\. blocks\.0\.ffn"):
        open_source(path)
    wrapped = {f"blocks.0._orig_mod.{n[9:]}": model[n].clone() for n in model if "blocks.0." in n}
    save_file({**model, **wrapped}, path)
    with pytest.raises(SourceError, match="twice, as"):
        open_source(path)


def test_metadata_follows_the_names(tmp_path: Path, toy_wan: Toy) -> None:
    """The header lists the formats of layers by their names in the file."""
    plain, quantized = tmp_path / "plain.safetensors", tmp_path / "quantized.safetensors"
    save_file(toy_wan(), plain)
    with open_source(plain) as source:
        convert(source, plan_of(source), quantized)
    with open_source(quantized) as expected:
        metadata, labels = dict(expected.metadata), {}
        from safetensors import safe_open

        with safe_open(quantized, "pt") as file:
            header = dict(file.metadata())
        text = header["_quantization_metadata"].replace('"blocks.', '"_orig_mod.blocks.')
        named = {
            f"_orig_mod.{n}": t for n, t in load_file(quantized).items() if "comfy_quant" not in n
        }
        compiled = tmp_path / "compiled.safetensors"
        save_file(named, compiled, {**header, "_quantization_metadata": text})
        with open_source(compiled) as source:
            assert metadata.keys() == source.metadata.keys()
            for name, info in expected.tensors.items():
                labels[name] = info.stored
                assert source.info(name).stored == info.stored or info.stored is not None
                assert torch.equal(source.load(name), expected.load(name)), name
    assert any(labels.values())


@pytest.mark.parametrize("model", sorted(path.stem for path in KNOWN_MODELS.glob("*.json")))
def test_the_names_of_a_model_that_comfyui_knows_have_no_prefix(model: str) -> None:
    known = known_models.known_model(model)
    assert known is not None
    # as published: the tensors that are most, in each of a few blocks
    every = [name.replace("#", str(block)) for name in known.every for block in range(20)]
    assert find_prefix(dict.fromkeys(every)) == ""
