"""Files that are one of several parts of a model by their names."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.errors import IncompleteError, SourceError
from nvfp4_foundry.quant.sources import open_source
from nvfp4_foundry.quant.sources.numbered_files import part_of
from safetensors.torch import save_file

from tests.helpers.command_line import run
from tests.helpers.conversions import Toy
from tests.helpers.gguf_files import write_gguf

STYLES = {
    "hub": "model-{:05d}-of-{:05d}.safetensors",
    "diffusers": "diffusion_pytorch_model-{:05d}-of-{:05d}.safetensors",
    "parts": "wan_part{}of{}.safetensors",
    "spelled": "wan.part_{}_of_{}.safetensors",
    "bare": "{}of{}.safetensors",
    "after the ending": "model.safetensors-{:05d}-of-{:05d}",
}


def write_parts(folder: Path, style: str, model: dict[str, torch.Tensor], count: int) -> list[Path]:
    names = sorted(model)
    cuts = [len(names) * i // count for i in range(count + 1)]
    paths = []
    for number, (start, stop) in enumerate(pairwise(cuts), 1):
        path = folder / style.format(number, count)
        save_file({name: model[name] for name in names[start:stop]}, path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_a_part_alone_is_refused_and_names_the_others(
    tmp_path: Path, toy_wan: Toy, style: str
) -> None:
    first, second, third = write_parts(tmp_path, style, toy_wan(), 3)
    second.unlink()
    with pytest.raises(IncompleteError, match="is part 1 of 3 of a model") as refused:
        open_source(first)
    message = str(refused.value)
    assert second.name in message and third.name not in message
    assert "fetch the missing files" in message and "--complete-from" in message
    third.unlink()
    with pytest.raises(IncompleteError, match=f"{second.name}.*{third.name}"):
        open_source(first)


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_a_part_with_all_others_beside_opens_the_model(
    tmp_path: Path, toy_wan: Toy, style: str
) -> None:
    model = toy_wan()
    paths = write_parts(tmp_path, style, model, 3)
    save_file({"other": torch.ones(1)}, tmp_path / "other-00001-of-00003.safetensors")
    for path in paths:
        with open_source(path) as source:
            assert set(source.tensors) == set(model)
            assert torch.equal(source.load("head.modulation"), model["head.modulation"])
            assert f"{path.name} is opened with the other parts beside it" in source.notes
            assert set(paths) <= set(source.paths)


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "wan_14b.safetensors", "top10of100.safetensors", "v3of2.safetensors",
     "model-00001-of-00001.safetensors", "best_of_2.safetensors", "part1.safetensors"],
)  # fmt: skip
def test_names_that_are_of_whole_models(tmp_path: Path, toy_wan: Toy, name: str) -> None:
    assert part_of(tmp_path / name) is None
    save_file(toy_wan(), tmp_path / name)
    with open_source(tmp_path / name) as source:
        assert source.notes == ()


def test_a_folder_with_missing_parts(tmp_path: Path, toy_wan: Toy) -> None:
    paths = write_parts(tmp_path, STYLES["hub"], toy_wan(), 4)
    paths[1].unlink()
    with pytest.raises(IncompleteError, match=f"3 of 4 parts.*missing is {paths[1].name}"):
        open_source(tmp_path)
    for path in (paths[0], paths[2]):
        path.unlink()
    with pytest.raises(IncompleteError, match=r"1 of 4 parts.*missing are"):
        open_source(tmp_path)


def test_a_folder_with_parts_of_two_models(tmp_path: Path, toy_wan: Toy) -> None:
    write_parts(tmp_path, "high-{:05d}-of-{:05d}.safetensors", toy_wan(), 2)
    other = {f"text.{name}": tensor for name, tensor in toy_wan().items()}
    write_parts(tmp_path, "low-{:05d}-of-{:05d}.safetensors", other, 2)
    with pytest.raises(SourceError, match=r"several models.*high-00001.*low-00001"):
        open_source(tmp_path)
    with open_source(tmp_path / "high-00001-of-00002.safetensors") as source:
        assert set(source.tensors) == set(toy_wan())


def test_an_index_beside_a_part_decides(tmp_path: Path, toy_wan: Toy) -> None:
    model = toy_wan()
    first, second = write_parts(tmp_path, STYLES["hub"], model, 2)
    with_stray = {**model, "blocks.9.q.weight": torch.ones(2, 2)}
    weight_map = dict.fromkeys(with_stray, first.name)
    weight_map["head.modulation"] = second.name
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(IncompleteError, match=r"1 tensors that its shards lack.*blocks\.9"):
        open_source(second)
    del weight_map["blocks.9.q.weight"]
    index.write_text(json.dumps({"weight_map": weight_map}))
    with open_source(second) as source:
        assert set(source.tensors) == set(model)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(model, first.name)}))
    second.unlink()
    with pytest.raises(IncompleteError, match="1 of 2 parts"):
        open_source(index)


def test_a_complete_file_completes_a_part(tmp_path: Path, toy_wan: Toy) -> None:
    model = toy_wan()
    first, second = write_parts(tmp_path, STYLES["hub"], model, 2)
    second.unlink()
    whole = tmp_path / "whole.safetensors"
    save_file(model, whole)
    with open_source(first, whole) as source:
        assert set(source.tensors) == set(model)


def test_parts_of_a_gguf(tmp_path: Path, toy_wan: Toy) -> None:
    model = {n: t for n, t in toy_wan().items() if n != "patch_embedding.weight"}
    names = sorted(model)
    for number, part in enumerate((names[::2], names[1::2]), 1):
        path = tmp_path / f"m-{number:05d}-of-00002.gguf"
        write_gguf(path, {name: model[name] for name in part})
    whole = tmp_path / "whole.safetensors"
    save_file(toy_wan(), whole)
    with open_source(path, whole) as source:
        assert set(source.tensors) == set(toy_wan())
    path.unlink()
    with pytest.raises(IncompleteError, match=r"part 1 of 2.*m-00002-of-00002\.gguf"):
        open_source(tmp_path / "m-00001-of-00002.gguf")


def test_parts_of_pickles_with_an_index(tmp_path: Path, toy_wan: Toy) -> None:
    model = toy_wan()
    names = sorted(model)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({name: model[name] for name in part}, tmp_path / file)
        weight_map |= dict.fromkeys(part, file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    for path in (index, tmp_path, tmp_path / file):
        with open_source(path) as source:
            assert torch.equal(source.load("head.modulation"), model["head.modulation"])
            assert set(source.tensors) == set(model)


def test_fewer_blocks_than_the_config_counts(tmp_path: Path, toy_wan: Toy) -> None:
    path = tmp_path / "model.safetensors"
    save_file(toy_wan(blocks=3), path)
    config = tmp_path / "config.json"
    config.write_text('{"_class_name": "WanModel", "num_layers": 4}')
    with pytest.raises(IncompleteError, match=r"ends after block 2, but .*config\.json says .* 4"):
        open_source(path)
    config.write_text('{"num_layers": 3}')
    with open_source(path):
        pass


def test_the_command_line_says_so(
    tmp_path: Path, toy_wan: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write_parts(tmp_path, STYLES["hub"], toy_wan(), 2)
    second.unlink()
    target = tmp_path / "out.safetensors"
    code, _, message = run(capsys, "quantize", first, target, "--preset", "all")
    assert code == 1 and second.name in message
    assert not target.exists()
