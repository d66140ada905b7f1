"""The marker of Qwen-Image-Edit 2511: kept, added by config or on demand, never to others."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from nvfp4_foundry.quant.planning import Recipe, get_preset
from nvfp4_foundry.quant.sources import open_source
from nvfp4_foundry.quant.sources.qwen_edit import ARCHITECTURE_2511, MARKER_2511
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.helpers.command_line import run, run_json


@pytest.fixture
def folder(tmp_path: Path, manifests: ModuleType) -> Path:
    """A transformer folder as diffusers makes them: two shards and an index."""
    folder = tmp_path / "transformer"
    folder.mkdir()
    names = list(manifests.qwen_image(1, 64).items())
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"diffusion_pytorch_model-0000{i}-of-00002.safetensors"
        save_file({n: torch.ones(s, dtype=torch.bfloat16) for n, s in part}, folder / shard)
        weight_map |= dict.fromkeys((n for n, _ in part), shard)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def set_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)


def has_marker(path: Path, *meant_for: str) -> bool:
    with open_source(path, meant_for=meant_for) as source:
        return MARKER_2511 in source.tensors


def test_the_folders_config_decides(folder: Path) -> None:
    index = next(folder.glob("*.index.json"))
    assert not has_marker(folder)
    for text in ('{"zero_cond_t": false}', "{}", "[]", "no JSON", '{"zero_cond_t": "true"}'):
        set_config(folder, text)
        assert not has_marker(folder) and not has_marker(index)
    set_config(folder, '{"_class_name": "QwenImageTransformer2DModel", "zero_cond_t": true}')
    assert has_marker(folder) and has_marker(index)
    with open_source(folder) as source:
        assert source.load(MARKER_2511).shape == (0,)
        assert source.info(MARKER_2511).shape == (0,)
        assert any("zero_cond_t" in note for note in source.notes)
        assert torch.equal(source.load("txt_norm.weight"), torch.ones(3584, dtype=torch.bfloat16))


def test_a_marker_that_is_there_is_kept(folder: Path) -> None:
    set_config(folder, '{"zero_cond_t": true}')
    shard = next(folder.glob("*.safetensors"))
    save_file({**load_file(shard), MARKER_2511: torch.empty(0)}, shard)
    with open_source(folder, meant_for=[ARCHITECTURE_2511]) as source:
        assert list(source.tensors).count(MARKER_2511) == 1 and source.notes == ()


def test_other_models_get_none(tmp_path: Path, toy_wan: object) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a.weight": torch.ones(4, 4)}, path)
    set_config(tmp_path, '{"zero_cond_t": true}')
    assert not has_marker(path, ARCHITECTURE_2511)


def test_only_the_preset_for_2511_asks_for_it(folder: Path) -> None:
    def adds_it(recipe: Recipe) -> bool:
        return has_marker(folder, *recipe.architectures)

    assert adds_it(get_preset("qwen-image-edit-2511").build({}))
    assert not adds_it(get_preset("qwen-image-2512").build({}))
    assert not adds_it(Recipe())
    assert not has_marker(folder, ARCHITECTURE_2511, "qwen-image")


def test_the_preset_asked_for_adds_it_on_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "edit.safetensors"
    preset = ("--preset", "qwen-image-edit-2511", "--setting", "edge_blocks=0")
    code, plan = run_json(capsys, "plan", folder, *preset)
    assert code == 0 and any("marker of Qwen-Image-Edit 2511" in note for note in plan["notes"])
    assert run(capsys, "quantize", folder, target, *preset)[0] == 0
    with safe_open(target, "pt") as made:
        assert made.get_tensor(MARKER_2511).shape == (0,)
    code, result = run_json(capsys, "verify", target, "--source", folder)
    assert (code, result["problems"]) == (0, [])
    assert run(capsys, "plan", folder, "--preset", "qwen-image-2512")[0] == 0
