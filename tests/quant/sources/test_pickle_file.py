"""Files of ``torch.save``: tensors are read, code is never run."""

from __future__ import annotations

import os
import pickle
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import open_source, pickle_file

from tests.helpers.command_line import run
from tests.helpers.conversions import Toy, bits, plan_of

NESTS = {
    "bare": lambda model: model,
    "state_dict": lambda model: {"state_dict": model, "epoch": 3},
    "one of any name": lambda model: {"whatever": model},
    "model in model": lambda model: {"model": {"state_dict": OrderedDict(model)}},
    "module": lambda model: {"module": model, "optimizer": {"state": {}}},
    "ema only": lambda model: {"ema": model, "step": 7},
}


def written(path: Path, value: Any, *, old: bool = False) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=not old)
    return path


@pytest.mark.parametrize("ending", [".pt", ".pth", ".ckpt", ".bin", ".safetensors"])
@pytest.mark.parametrize("nest", NESTS)
def test_weights_are_found(tmp_path: Path, toy_wan: Toy, nest: str, ending: str) -> None:
    model = toy_wan(blocks=1)
    with open_source(written(tmp_path / f"model{ending}", NESTS[nest](model))) as source:
        assert set(source.tensors) == set(model)
        for name, tensor in model.items():
            assert source.info(name).dtype == tensor.dtype
            assert torch.equal(bits(source.load(name)), bits(tensor)), name
            assert source.load(name).data_ptr() != source.load(name).data_ptr()


def test_the_weights_win_over_their_average(tmp_path: Path, toy_wan: Toy) -> None:
    model, average = toy_wan(seed=1), toy_wan(seed=2)
    path = written(tmp_path / "m.pt", {"ema": average, "model": model, "optimizer": {}})
    with open_source(path) as source:
        assert torch.equal(source.load("head.modulation"), model["head.modulation"])
        assert "the weights are those in 'model'; not read: ema, optimizer" in source.notes


def test_a_prefix_is_removed_as_in_other_files(tmp_path: Path, toy_wan: Toy) -> None:
    model = toy_wan()
    named = {f"module._orig_mod.{name}": tensor for name, tensor in model.items()}
    with open_source(written(tmp_path / "m.pt", named)) as source:
        assert set(source.tensors) == set(model)


def test_views_and_shared_storages_are_copied(tmp_path: Path) -> None:
    base = torch.arange(24.0).view(4, 6)
    model = {"a.weight": base.t(), "b.weight": base[1:3], "c.weight": base}
    with open_source(written(tmp_path / "m.pt", model)) as source:
        for name, tensor in model.items():
            loaded = source.load(name)
            assert torch.equal(loaded, tensor) and loaded.is_contiguous()
        source.load("c.weight").zero_()
        assert torch.equal(source.load("c.weight"), base)


def test_the_old_format_is_read_into_memory(tmp_path: Path, toy_wan: Toy) -> None:
    model = toy_wan(blocks=1)
    with open_source(written(tmp_path / "m.pt", model, old=True)) as source:
        assert torch.equal(source.load("head.modulation"), model["head.modulation"])
        assert any("all of it is in memory" in note for note in source.notes)


def test_a_conversion_is_right(tmp_path: Path, toy_wan: Toy) -> None:
    path, target = written(tmp_path / "m.ckpt", {"state_dict": toy_wan()}), tmp_path / "out.st"
    with open_source(path) as source:
        convert(source, plan_of(source), target)
    assert verify_checkpoint(target, path).problems == ()


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("old", [False, True])
def test_code_is_not_run(
    tmp_path: Path, toy_wan: Toy, old: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    proof = tmp_path / "proof"
    value = {**toy_wan(blocks=1), "x": Malicious(proof)}
    path = written(tmp_path / "m.ckpt", value, old=old)
    with pytest.raises(SourceError, match=r"more than tensors.*convert it to safetensors") as error:
        open_source(path)
    assert str(path) in str(error.value) and "system" in str(error.value)
    for command in ("inspect", "verify"):
        code, _, message = run(capsys, command, path)
        assert code == 1 and "more than tensors" in message
    assert not proof.exists()


def test_a_bare_pickle_is_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    path = tmp_path / "m.bin"
    path.write_bytes(pickle.dumps({"a": Malicious(proof)}))
    with pytest.raises(SourceError) as error:
        open_source(path)
    assert str(path) in str(error.value)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a.weight": torch.ones(2, 2), "args": Namespace(lr=1)}, "more than tensors.*Namespace"),
        ({"step": 3}, "without the tensors of a model"),
        ([1, 2], "without the tensors of a model"),
        ({"a.weight": torch.eye(3).to_sparse()}, "a.weight is sparse"),
    ],
)
def test_what_holds_no_plain_tensors_is_refused(tmp_path: Path, value: Any, message: str) -> None:
    path = written(tmp_path / "m.pt", value)
    with pytest.raises(SourceError, match=message) as error:
        open_source(path)
    assert str(path) in str(error.value)


def test_a_truncated_file(tmp_path: Path, toy_wan: Toy) -> None:
    for old in (False, True):
        path = written(tmp_path / "m.pt", toy_wan(), old=old)
        whole = path.read_bytes()
        for size in (20, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(SourceError, match=r"fetch it again|more than tensors"):
                open_source(path)


def test_an_older_torch_does_not_read_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loader of weights could be tricked into running code."""
    path = written(tmp_path / "m.pt", {"a": torch.ones(2)})
    monkeypatch.setattr(pickle_file.torch, "__version__", "2.5.1+cpu")
    with pytest.raises(SourceError, match=r"update torch to 2\.6"):
        open_source(path)
