"""Models that lack a part are refused by name; models whose blocks differ by design are not."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.errors import IncompleteError
from nvfp4_foundry.quant.planning import detect_architecture, inventory_of, take_inventory
from nvfp4_foundry.quant.planning.completeness import missing_parts, require_whole
from nvfp4_foundry.quant.sources import StateDictSource, TensorInfo, open_source
from safetensors.torch import save_file

from tests.data.manifests import FAMILIES, GENERATED, MODELS, Manifest, load_key_list
from tests.helpers.command_line import run
from tests.helpers.conversions import Toy

#: Every model class of ComfyUI, and made-up models.
WHOLE = {**{name: partial(load_key_list, name) for name in GENERATED}, **MODELS, **FAMILIES}


def missing_of(shapes: Manifest) -> list[str]:
    inventory = inventory_of(TensorInfo(n, s, torch.bfloat16) for n, s in shapes.items())
    return missing_parts(inventory, detect_architecture(inventory))


@pytest.mark.parametrize("model", WHOLE)
def test_no_whole_model_is_refused(model: str) -> None:
    assert missing_of(WHOLE[model]()) == []


@pytest.mark.parametrize("model", WHOLE)
def test_a_lost_matrix_of_a_block_is_missed(model: str) -> None:
    """Of the matrices in lists of numbered blocks, drawn at random."""
    shapes = WHOLE[model]()
    matrices = sorted(
        n for n, s in shapes.items()
        if len(s) == 2 and n.endswith(".weight") and n.split(".")[1].isdigit() and n.count(".") > 3
    )  # fmt: skip
    lost = random.Random(1).sample(matrices, min(4, len(matrices)))
    for name in lost:
        found = missing_of({n: s for n, s in shapes.items() if n != name})
        assert found in ([name], [name, name.replace(".weight", ".bias")], []), (name, found)
    if len(lost) == 4:  # a list may have blocks of which nothing is known, but not all of them
        assert any(missing_of({n: s for n, s in shapes.items() if n != name}) for name in lost)


def without(shapes: Manifest, *starts: str) -> Manifest:
    return {name: shape for name, shape in shapes.items() if not name.startswith(starts)}


@pytest.mark.parametrize("model", ["wan2.2-ti2v-5b", "qwen-image-2512", "unknown-dit", "z-image"])
def test_blocks_that_are_missing(model: str) -> None:
    shapes = WHOLE[model]()
    container = {"wan2.2-ti2v-5b": "blocks", "unknown-dit": "stages", "z-image": "layers"}.get(
        model, "transformer_blocks"
    )
    assert missing_of(without(shapes, f"{container}.1.")) == [f"{container}.1"]
    first_lost = missing_of(without(shapes, f"{container}.0.", f"{container}.1."))
    assert first_lost[:2] == [f"{container}.0", f"{container}.1"]


def test_a_block_that_was_cut_off(toy_wan: Toy) -> None:
    """As where one shard of two ends."""
    tensors = {n: tuple(t.shape) for n, t in toy_wan(blocks=6).items()}
    cut = {n: s for n, s in tensors.items() if not n.startswith("blocks.5.")}
    cut["blocks.5.self_attn.q.weight"] = (64, 64)
    cut["blocks.5.self_attn.q.bias"] = (64,)
    found = missing_of(cut)
    assert "blocks.5.ffn.0.weight" in found and "blocks.5.self_attn.o.bias" in found
    unknown = {f"x.{n}" if n.startswith("blocks.") else n: s for n, s in cut.items()}
    assert "x.blocks.5.ffn.0.weight" in missing_of(unknown)


def test_half_of_a_layer_outside_of_blocks(toy_wan: Toy) -> None:
    tensors = {n: tuple(t.shape) for n, t in toy_wan().items()}
    assert missing_of(without(tensors, "head.head.weight")) == ["head.head.weight"]


def test_designs_whose_blocks_differ() -> None:
    """Of a model that nobody knows: gates in every other block, another last block, two kinds."""

    def block(number: int, *extra: str) -> Manifest:
        names = ("q", "k", "v", "o", "up", "down", *extra)
        return {f"stages.{number}.part.{name}.weight": (64, 64) for name in names}

    def model(*extras: tuple[str, ...]) -> Manifest:
        return {n: s for i, extra in enumerate(extras) for n, s in block(i, *extra).items()}

    gate, experts = ("gate",), ("router", "expert_up", "expert_down")
    assert missing_of(model(gate, (), gate, (), gate, ())) == []
    assert missing_of(model(gate, gate, gate, gate, ())) == []
    assert missing_of(model((), gate, gate, gate, gate)) == []
    assert missing_of(model((), (), gate, (), ())) == []
    assert missing_of(model(gate, gate, experts, gate, gate)) == []
    assert missing_of(model(gate, gate, (), gate, gate)) == ["stages.2.part.gate.weight"]


def save_hole(folder: Path, toy_wan: Toy) -> Path:
    model = toy_wan()
    del model["blocks.1.ffn.0.weight"]
    save_file(model, folder / "hole.safetensors")
    return folder / "hole.safetensors"


def test_the_message_names_file_tensor_and_way_out(tmp_path: Path, toy_wan: Toy) -> None:
    path = save_hole(tmp_path, toy_wan)
    with open_source(path) as source, pytest.raises(IncompleteError) as refused:
        require_whole(take_inventory(source))
    message = str(refused.value)
    assert str(path) in message and "lacks blocks.1.ffn.0.weight" in message
    assert "--complete-from" in message and "WAN" in message


def test_the_command_line_refuses_and_completes(
    tmp_path: Path, toy_wan: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    path, target = save_hole(tmp_path, toy_wan), tmp_path / "out.safetensors"
    for command in (("plan", path), ("quantize", path, target)):
        code, _, message = run(capsys, *command, "--preset", "all")
        assert code == 1 and "lacks blocks.1.ffn.0.weight" in message
    assert not target.exists()
    whole = tmp_path / "whole.safetensors"
    save_file(toy_wan(), whole)
    code, _, message = run(
        capsys, "quantize", path, target, "--preset", "all", "--complete-from", whole
    )
    assert (code, message) == (0, "") or target.exists()


def test_a_model_in_memory_is_not_judged(toy_wan: Toy) -> None:
    """ComfyUI built it, whatever its modules are."""
    model = toy_wan()
    del model["blocks.1.ffn.0.weight"]
    require_whole(take_inventory(StateDictSource(model, "MODEL")))
