"""Damage of a file is seen without its source, and the source itself is recognised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.checkpoint.copy import copy_checkpoint
from nvfp4_foundry.quant.checkpoint.digests import HEADER_DIGEST
from nvfp4_foundry.quant.conversion.convert import convert, quantize_to_memory, save_model
from nvfp4_foundry.quant.errors import FoundryError
from nvfp4_foundry.quant.reports.checkpoint import describe_summary
from nvfp4_foundry.quant.sources import open_source
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.helpers.conversions import Toy, metadata_of, plan_of


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Return a checkpoint of a few hundred bytes of data, with every kind of tensor."""
    torch.manual_seed(0)
    source, target = tmp_path / "tiny.safetensors", tmp_path / "out.safetensors"
    tensors = {
        "blocks.0.ffn.0.weight": torch.randn(16, 16),
        "blocks.0.ffn.0.bias": torch.randn(16),
        "blocks.0.norm.weight": torch.ones(4),
        "blocks.0.modulation": torch.randn(1, 3),
    }
    save_file(
        {n: t.bfloat16() for n, t in tensors.items()}, source, {"title": "é\u001f", "unused": ""}
    )
    with open_source(source) as opened:
        convert(opened, plan_of(opened, "*.ffn.0 = float8_e4m3fn"), target)
    return target


def is_seen(path: Path) -> bool:
    try:
        return not verify_checkpoint(path).ok
    except FoundryError:
        return True


def test_every_flipped_bit_is_seen(tiny: Path) -> None:
    """In the length, the header and its padding, the markers and the data; one bit per byte.

    Of the data, whose digests do not depend on the place, every bit of every eighth byte.
    """
    good = tiny.read_bytes()
    assert not is_seen(tiny)
    start = 8 + int.from_bytes(good[:8], "little")
    header = [(at, at % 8) for at in range(8, start)]
    rest = [(at, bit) for at in (*range(8), *range(start, len(good), 8)) for bit in range(8)]
    damaged = tiny.with_name("damaged.safetensors")
    unseen = []
    for at, bit in (*header[:: max(1, len(header) // 400)], *rest):
        bad = bytearray(good)
        bad[at] ^= 1 << bit
        damaged.write_bytes(bad)
        if not is_seen(damaged):
            unseen.append((at, bit))
    assert unseen == []


def test_the_message_names_what_is_damaged(tiny: Path) -> None:
    assert "\ndigests yes: verify finds any changed bit\n" in describe_summary(
        inspect_checkpoint(tiny)
    )
    data = bytearray(tiny.read_bytes())
    data[8 + int.from_bytes(data[:8], "little")] ^= 1
    tiny.write_bytes(data)
    (problem,) = verify_checkpoint(tiny).problems
    assert problem.endswith("the tensor is damaged: its bytes are not those that were written")


def test_edited_metadata_is_named(tiny: Path) -> None:
    with safe_open(tiny, "pt") as file:
        metadata = dict(file.metadata())
    save_file(load_file(tiny), tiny, metadata)
    result = verify_checkpoint(tiny)
    assert result.ok and any("another program wrote the header" in n for n in result.notes)
    save_file(load_file(tiny), tiny, {**metadata, "title": "mine", "new": "x"})
    added, changed = verify_checkpoint(tiny).problems
    assert added.startswith("the metadata entry new was added")
    assert changed.startswith("the metadata entry title was changed")
    del metadata[HEADER_DIGEST]
    save_file(load_file(tiny), tiny, metadata)
    (problem,) = verify_checkpoint(tiny).problems
    assert HEADER_DIGEST in problem


def test_files_of_other_tools_are_checked_as_far_as_they_allow(
    tmp_path: Path, toy_wan: Toy
) -> None:
    path = tmp_path / "other.safetensors"
    save_file(toy_wan(), path)
    result = verify_checkpoint(path)
    assert result.ok and any("no digests" in note for note in result.notes)
    assert "\ndigests none\n" in describe_summary(inspect_checkpoint(path))


def test_a_copy_and_a_saved_model_have_their_own_digests(tmp_path: Path, toy_wan: Toy) -> None:
    source = tmp_path / "source.safetensors"
    save_file(toy_wan(), source)
    with open_source(source) as opened:
        model = quantize_to_memory(opened, plan_of(opened))
    save_model(model, tmp_path / "saved.safetensors")
    copy_checkpoint(tmp_path / "saved.safetensors", tmp_path / "copy.safetensors")
    for name in ("saved", "copy"):
        result = verify_checkpoint(tmp_path / f"{name}.safetensors", source)
        assert (result.problems, result.notes) == ((), ())


def test_another_finetune_with_nearly_equal_weights_is_told_apart(
    tmp_path: Path, toy_wan: Toy
) -> None:
    source, target, other = (tmp_path / f"{n}.safetensors" for n in ("source", "out", "other"))
    tensors = toy_wan()
    save_file(tensors, source)
    with open_source(source) as opened:
        convert(opened, plan_of(opened), target)
    name = "blocks.1.self_attn.q.weight"
    changed = tensors[name].clone()
    changed[0, 0] *= 1.01
    save_file({**tensors, name: changed}, other)
    assert verify_checkpoint(target, source).problems == ()
    problems = verify_checkpoint(target, other).problems
    assert problems[0].startswith("this file was not made from this source: 1 of ")
    assert name in problems[0]


def test_the_same_source_under_other_names_and_in_shards(tmp_path: Path, toy_wan: Toy) -> None:
    source, target = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    tensors = toy_wan()
    save_file(tensors, source)
    with open_source(source) as opened:
        convert(opened, plan_of(opened), target)
    renamed = {f"model.diffusion_model.{name}": tensor for name, tensor in tensors.items()}
    folder = tmp_path / "shards"
    folder.mkdir()
    names = sorted(renamed)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, found in parts.items():
        save_file({name: renamed[name] for name in found}, folder / file)
    index = {"weight_map": {name: file for file, found in parts.items() for name in found}}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    result = verify_checkpoint(target, path)
    assert (result.problems, result.notes) == ((), ())


def test_weights_that_were_taken_over_prove_their_source(tmp_path: Path, toy_wan: Toy) -> None:
    source, first, second = (tmp_path / f"{n}.safetensors" for n in ("source", "one", "two"))
    save_file(toy_wan(), source)
    for before, after in ((source, first), (first, second)):
        with open_source(before) as opened:
            convert(opened, plan_of(opened), after)
    assert "stored:" in metadata_of(second)["nvfp4_foundry_source_digests"]
    assert verify_checkpoint(second, first).problems == ()
