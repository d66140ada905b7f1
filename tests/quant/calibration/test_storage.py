"""Calibration files: everything is read back, and errors name every kind of damage."""

from __future__ import annotations

import gc
import json
import os

import numpy as np
import pytest
import safetensors.torch
import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    load_fingerprint,
    load_statistics,
    merge,
    save_statistics,
    storage,
)
from nvfp4_foundry.quant.errors import CalibrationError, FileError

ARRAYS = ("sigma", "branch", "call_amax", "run", "sum_squares", "channel_amax", "priorities")


def _edit(path, change) -> None:
    """Rewrite a file with changed tensors or metadata."""
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[storage.METADATA_KEY])
    change(tensors, header)
    metadata = {storage.METADATA_KEY: json.dumps(header)}
    path.unlink()
    safetensors.torch.save_file({k: v.clone() for k, v in tensors.items()}, path, metadata)


@pytest.fixture
def saved(tmp_path, sample_statistics):
    path = tmp_path / "stats.safetensors"
    save_statistics(sample_statistics(), path)
    return path


def test_round_trip(tmp_path, sample_statistics) -> None:
    statistics = merge(sample_statistics(0), sample_statistics(1, tokens=900))
    path = tmp_path / "stats.safetensors"
    save_statistics(statistics, path)
    loaded = load_statistics(str(path))
    assert loaded.fingerprint == statistics.fingerprint
    assert loaded.runs == statistics.runs
    assert loaded.summary() == statistics.summary()
    assert list(loaded.layers) == list(statistics.layers)
    assert loaded.layers["q"] is loaded.layers["v"]
    for name, layer in statistics.layers.items():
        other = loaded.layers[name]
        assert torch.equal(layer.rows, other.rows)
        assert layer.row_limit == other.row_limit
        for field in ARRAYS:
            np.testing.assert_array_equal(getattr(layer, field), getattr(other, field))
            assert getattr(layer, field).dtype == getattr(other, field).dtype
    again = tmp_path / "again.safetensors"
    save_statistics(loaded, again)
    assert again.read_bytes() == path.read_bytes()


def test_shared_arrays_are_stored_once(saved, sample_statistics) -> None:
    names = set(safetensors.torch.load_file(saved))
    assert {n.removesuffix(".rows") for n in names if n.endswith(".rows")} == {
        "k", "o", "ffn.0", "ffn.2",
    }  # fmt: skip
    layers = load_statistics(saved).layers
    assert layers["q"].rows is layers["k"].rows is layers["v"].rows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_row_dtype_is_kept(tmp_path, tiny_block, fingerprint, dtype) -> None:
    block, collector = tiny_block().to(dtype), ActivationCollector()
    with torch.inference_mode(), collector.observe(block):
        block(torch.randn(1, 3, 16, dtype=dtype))
    save_statistics(collector.snapshot(fingerprint), tmp_path / "s")
    assert load_statistics(tmp_path / "s").layers["q"].rows.dtype == dtype


def test_loading_does_not_hold_the_file(saved, sample_statistics) -> None:
    loaded = load_statistics(saved)
    before = loaded.layers["q"].rows.clone()
    save_statistics(sample_statistics(5), saved)
    assert torch.equal(loaded.layers["q"].rows, before)


@pytest.mark.parametrize("keep", [0, 4, 8, 200, -1])
def test_truncated(saved, keep) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(CalibrationError, match=r"stats\.safetensors is damaged or truncated"):
        load_statistics(saved)


def test_missing_and_unrelated_files(tmp_path, saved) -> None:
    with pytest.raises(CalibrationError, match=r"absent: cannot read"):
        load_statistics(tmp_path / "absent")
    weights = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"w": torch.ones(2)}, weights)
    with pytest.raises(CalibrationError, match="is not a calibration file"):
        load_statistics(weights)
    text = tmp_path / "text"
    text.write_text("hello world, this is no tensor file")
    with pytest.raises(CalibrationError, match="damaged or truncated"):
        load_statistics(text)


def test_newer_version(saved) -> None:
    _edit(saved, lambda t, h: h.update(version=3))
    with pytest.raises(CalibrationError, match=r"newer version.*format 3"):
        load_statistics(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda t, h: t.pop("k.sigma"),
        lambda t, h: t.update({"k.sigma": torch.zeros(3)}),
        lambda t, h: t.update({"k.sigma": t["k.sigma"].double()}),
        lambda t, h: t.update({"k.sum_squares": t["k.sum_squares"][:-1]}),
        lambda t, h: t.update({"k.rows": t["k.rows"][:, :-1]}),
        lambda t, h: t.update({"k.rows": t["k.rows"][:-1]}),
        lambda t, h: t.update({"k.rows": t["k.rows"].int()}),
        lambda t, h: t.update({"k.run": t["k.run"] + 1}),
        lambda t, h: t.update({"k.run": t["k.run"] - 1}),
        lambda t, h: t.update({"k.row_run": t["k.row_run"] + 1}),
        lambda t, h: h["inputs"]["k"].update(moments=[{"id": "../evil", "run": "", "tokens": 1}]),
        lambda t, h: h.pop("version"),
        lambda t, h: h.update(version="one"),
        lambda t, h: h.pop("fingerprint"),
        lambda t, h: h.update(runs=[]),
        lambda t, h: h.update(inputs=[1]),
        lambda t, h: h["inputs"]["k"].update(in_features="wide"),
        lambda t, h: h.update(fingerprint=3),
    ],
)
def test_inconsistent_contents(saved, change) -> None:
    _edit(saved, change)
    with pytest.raises(CalibrationError, match=r"stats\.safetensors: the calibration is damaged"):
        load_statistics(saved)


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    saved, sample_statistics, monkeypatch, error, step
) -> None:
    before = saved.read_bytes()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises((FileError, KeyboardInterrupt)):
        save_statistics(sample_statistics(3), saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_unwritable_target(tmp_path, sample_statistics) -> None:
    with pytest.raises(FileError, match="does not exist; create it"):
        save_statistics(sample_statistics(), tmp_path / "no" / "folder" / "s")


def test_the_model_is_read_from_the_header_alone(saved) -> None:
    assert load_fingerprint(saved) == load_statistics(saved).fingerprint
    saved.write_bytes(saved.read_bytes()[:200])
    assert load_fingerprint(saved) is None
    assert load_fingerprint(saved.with_name("absent")) is None


def test_tensors_are_aligned_and_the_file_is_one_of_the_library(saved, sample_statistics) -> None:
    data = saved.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    bits = {"F64": 64, "F32": 32, "I32": 32, "BF16": 16, "F16": 16, "I8": 8}
    for name, entry in header.items():
        if name != "__metadata__":
            assert (8 + length + entry["data_offsets"][0]) * 8 % bits[entry["dtype"]] == 0
    read, (layer, *_) = safetensors.torch.load_file(saved), load_statistics(saved).inputs.values()
    for name in ARRAYS:
        assert np.array_equal(read[f"{layer.input_id}.{name}"].numpy(), getattr(layer, name))


def test_saving_keeps_nothing_for_each_size(tmp_path, sample_statistics) -> None:
    """The ``save`` of the library makes two types of ctypes for each new number of bytes."""

    def types() -> int:
        gc.collect()
        return sum(issubclass(type(each), type) for each in gc.get_objects())

    tables = [sample_statistics(calls=calls) for calls in range(101, 105)]
    save_statistics(tables.pop(), tmp_path / "stats.safetensors")
    before = types()
    for table in tables:
        save_statistics(table, tmp_path / "stats.safetensors")
    assert types() == before
