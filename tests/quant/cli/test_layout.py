"""``--layout``: asked for where an NVFP4 file does not show it, and used by every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import save_file

from tests.helpers.command_line import leaf_commands, run, run_json
from tests.helpers.conversions import Toy
from tests.helpers.odd_files import nvfp4_file
from tests.helpers.quantized_files import Tensors, is_linear_in_block

Capture = pytest.CaptureFixture[str]
# Commands that read no model, or only checkpoints with markers.
WITHOUT = {"doctor", "demo", "report", "rescale"}


@pytest.fixture
def model(toy_wan: Toy) -> Tensors:
    """Return a model of aligned sizes and random weights: both layouts are possible."""
    return toy_wan(blocks=2, width=128)


@pytest.fixture
def file(tmp_path: Path, model: Tensors) -> Path:
    path = tmp_path / "model.safetensors"
    tensors = nvfp4_file(model, comfyui=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def test_quantize_asks_and_takes_the_answer(
    capsys: Capture, tmp_path: Path, file: Path, model: Tensors
) -> None:
    target = tmp_path / "out.safetensors"
    rules = ("--preset", "all", "--any-architecture")
    code, _, text = run(capsys, "quantize", file, target, *rules)
    assert code == 1 and not target.exists()
    assert str(file) in text and "--layout comfyui" in text and "--layout modelopt" in text
    code, *_ = run(capsys, "quantize", file, target, *rules, "--layout", "comfyui")
    assert code == 0
    with open_source(target) as result:
        for name, tensor in model.items():
            if is_linear_in_block(name, tensor):
                wanted = tensor.float()
                assert (result.load(name) - wanted).norm() / wanted.norm() < 0.12, name
    source = ("--source", file, "--layout", "comfyui")
    assert run(capsys, "verify", target, *source)[0] == 0
    assert run(capsys, "verify", target, "--source", file, "--layout", "modelopt")[0] == 1


@pytest.mark.parametrize("layout", ["comfyui", "modelopt"])
def test_commands_that_look_take_it_too(capsys: Capture, file: Path, layout: str) -> None:
    code, summary = run_json(capsys, "inspect", file)
    assert code == 0 and any("not readable" in name for name in summary["formats"])
    code, summary = run_json(capsys, "inspect", file, "--layout", layout)
    assert code == 0
    assert ("nvfp4" if layout == "comfyui" else "nvfp4 (ModelOpt)") in summary["formats"]
    code, compared = run_json(capsys, "compare", file, file, "--layout", layout)
    assert code == 0 and compared["relative_error"] == 0


def test_recipes_can_be_made_from_such_a_file(capsys: Capture, tmp_path: Path, file: Path) -> None:
    recipe = tmp_path / "recipe.json"
    arguments = ("recipe", "from-checkpoint", file, "--output", recipe)
    assert run(capsys, *arguments)[0] == 1
    assert run(capsys, *arguments, "--layout", "comfyui")[0] == 0
    assert "nvfp4" in json.dumps(json.loads(recipe.read_text()))


def test_every_command_that_opens_a_model_has_the_option() -> None:
    reading = {"source", "model", "checkpoint", "path", "a", "target_model"}
    for name, parser in leaf_commands().items():
        arguments = {action.dest for action in parser._actions}
        if arguments & reading and name.split()[0] not in WITHOUT:
            assert "layout" in arguments, name
