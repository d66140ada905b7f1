"""Scales in a second file beside the model, as HunyuanVideo's official float8 has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import save_file

from tests.helpers.odd_files import BOUNDS, E4M3, coded, per_tensor
from tests.helpers.quantized_files import Tensors, is_linear_in_block

from .conftest import Judge


def scales(model: Tensors, key: str = "{}") -> dict[str, torch.Tensor]:
    return {
        key.format(name.removesuffix(".weight")): per_tensor(tensor.float(), E4M3)[1]
        for name, tensor in model.items()
        if is_linear_in_block(name, tensor)
    }


@pytest.fixture
def bare(model: Tensors) -> Tensors:
    """Return the model with codes only."""
    return coded(model, lambda weight: per_tensor(weight, E4M3))


@pytest.mark.parametrize("name", ["model_map.safetensors", "model_scales.safetensors"])
@pytest.mark.parametrize("key", ["{}", "{}.weight", "{}.fp8_scale", "module.{}"])
def test_a_map_is_found_beside_the_file(
    tmp_path: Path, judge: Judge, model: Tensors, bare: Tensors, name: str, key: str
) -> None:
    save_file(scales(model, key), tmp_path / name)
    error, notes = judge(bare)
    assert 0.001 < error < BOUNDS[E4M3]
    assert any("are taken from" in note and name in note for note in notes)


@pytest.mark.parametrize("as_numbers", [True, False])
def test_a_map_may_be_a_pickle(
    tmp_path: Path, judge: Judge, model: Tensors, bare: Tensors, as_numbers: bool
) -> None:
    """HunyuanVideo's is: a dict of tensors by the names of modules."""
    entries: dict[str, Any] = scales(model)
    if as_numbers:
        entries = {name: float(scale) for name, scale in entries.items()}
    torch.save(entries, tmp_path / "model_map.pt")
    error, _ = judge(bare)
    assert 0.001 < error < BOUNDS[E4M3]


class Malicious:
    """Runs code when a plain unpickler reads it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("pwned", "w"))


def test_code_in_a_pickle_is_not_run(
    tmp_path: Path, judge: Judge, bare: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"blocks.0.ffn.0": Malicious()}, tmp_path / "model_map.pt")
    with pytest.raises(SourceError, match=r"model_map\.pt .*cannot be read"):
        judge(bare)
    assert not (tmp_path / "pwned").exists()


def test_a_map_of_another_model_is_refused(tmp_path: Path, judge: Judge, bare: Tensors) -> None:
    save_file({"double_blocks.0.img_mlp.0": torch.ones(1)}, tmp_path / "model_map.safetensors")
    with pytest.raises(SourceError, match=r"model_map\.safetensors .*no scale for any"):
        judge(bare)


def test_a_map_without_most_layers_does_not_make_the_rest_plain(
    tmp_path: Path, judge: Judge, model: Tensors, bare: Tensors
) -> None:
    part = {name: scale for name, scale in scales(model).items() if name.startswith("blocks.0.")}
    save_file(part, tmp_path / "model_map.safetensors")
    with pytest.raises(SourceError, match=r"blocks\.1\..*fill the whole range"):
        judge(bare)


def test_a_map_beside_a_file_with_scales_is_not_read(
    tmp_path: Path, judge: Judge, model: Tensors
) -> None:
    (tmp_path / "model_map.pt").write_bytes(b"not a pickle")
    error, _ = judge(coded(model, lambda weight: per_tensor(weight, E4M3), "weight_scale"))
    assert error < BOUNDS[E4M3]


def test_the_model_may_be_a_pickle_too(tmp_path: Path, model: Tensors, bare: Tensors) -> None:
    """As HunyuanVideo's: mp_rank_00_model_states_fp8.pt, with its tensors under "module"."""
    path = tmp_path / "mp_rank_00_model_states_fp8.pt"
    torch.save({"module": bare}, path)
    with pytest.raises(SourceError, match=r"fill the whole range .*_map\.pt"):
        open_source(path)
    torch.save(scales(model), tmp_path / "mp_rank_00_model_states_fp8_map.pt")
    with open_source(path) as source:
        assert len(source.paths) == 2
        for name, tensor in model.items():
            wanted, got = tensor.float(), source.load(name).float()
            assert (got - wanted).norm() / wanted.norm() < BOUNDS[E4M3], name


def test_a_single_layer_whose_scale_is_lost_is_refused(
    tmp_path: Path, model: Tensors, bare: Tensors
) -> None:
    """All others are plain casts, which are right as they are."""
    path, name = tmp_path / "model.safetensors", "blocks.1.ffn.2.weight"
    cast = {n: t.to(E4M3) if is_linear_in_block(n, t) else t for n, t in model.items()}
    save_file(cast, path)
    open_source(path).close()
    save_file({**cast, name: bare[name]}, path)
    with pytest.raises(SourceError, match=rf"the values of {name} are 8-bit floats that fill"):
        open_source(path)
