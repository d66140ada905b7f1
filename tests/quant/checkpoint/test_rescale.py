"""Rescaling gives the input scales of a new conversion and copies all other tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    parse_policy,
)
from nvfp4_foundry.quant.checkpoint import rescale_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import CalibrationError, CheckpointError, FileError
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file, save_file

from tests.helpers.conversions import MARKERS, assert_same, bits, metadata_of, plan_of

Toy = Callable[..., dict[str, torch.Tensor]]
Q, F8, W4A16 = "blocks.1.self_attn.q", "blocks.1.ffn.2", "blocks.1.self_attn.v"
AMAX = parse_policy("amax*4")


def statistics_of(path: Path, amax: float, skipped: tuple[str, ...] = ()) -> CalibrationStatistics:
    """Make a calibration of a model whose Linear layers received at most ``amax``."""
    root = torch.nn.Module()
    with open_source(path) as source:
        for number, (name, info) in enumerate(source.tensors.items()):
            layer = name.removesuffix(".weight")
            if layer != name and len(info.shape) == 2 and layer not in skipped:
                root.add_module(f"m{number}", torch.nn.Linear(*reversed(info.shape), bias=False))
        collector = ActivationCollector()
        collector.new_run("known amax")
        with collector.observe(root):
            collector.begin_call(0.5, [0])
            for module in root.children():
                inputs = torch.rand(1, 8, module.in_features)
                inputs[0, 3, 5] = -amax
                module(inputs)
        found = collector.snapshot(source.fingerprint())
        names = {f"m{i}": name.removesuffix(".weight") for i, name in enumerate(source.tensors)}
    layers = {names[n]: replace(la, input_id=names[n]) for n, la in found.layers.items()}
    return replace(found, layers={name: layers[name] for name in sorted(layers)})


@pytest.fixture
def source(tmp_path: Path, toy_wan: Toy) -> Path:
    path = tmp_path / "source.safetensors"
    save_file(toy_wan(), path, {"author": "someone"})
    return path


@pytest.fixture
def quantize(source: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that converts the source with a calibration."""

    def run(name: str, statistics: CalibrationStatistics | None) -> Path:
        target = tmp_path / f"{name}.safetensors"
        with open_source(source) as opened:
            plan = plan_of(opened, bias_correction=False)
            convert(opened, plan, target, statistics=statistics)
        return target

    return run


def scales(path: Path) -> dict[str, float]:
    return {n: float(t) for n, t in load_file(path).items() if n.endswith(".input_scale")}


@pytest.mark.parametrize("before", [None, 3.5], ids=["from dynamic", "from static"])
def test_as_if_quantized_with_the_new_statistics(
    before: float | None, source: Path, quantize: Callable[..., Path], tmp_path: Path
) -> None:
    old = quantize("old", statistics_of(source, before) if before else None)
    new_statistics = statistics_of(source, 7.25, skipped=("blocks.0.ffn.0",))
    target = tmp_path / "rescaled.safetensors"
    report = rescale_checkpoint(old, AMAX, new_statistics, target)
    wanted = quantize("wanted", new_statistics)
    assert_same(load_file(target), load_file(wanted))
    assert len(report.layers) == 36 and report.compared > 0
    by_name = {layer.name: layer for layer in report.layers}
    assert W4A16 not in by_name
    assert by_name[Q].after == pytest.approx(4 * 7.25 / 2688)
    assert by_name[F8].after == pytest.approx(4 * 7.25 / 448)
    assert by_name[Q].change == (pytest.approx(7.25 / 3.5) if before else None)
    assert by_name["blocks.0.ffn.0"].after is None
    assert "never observed" in by_name["blocks.0.ffn.0"].reason
    assert verify_checkpoint(target, source).problems == ()


def test_nothing_else_changes_and_the_header_says_what_did(
    source: Path, quantize: Callable[..., Path]
) -> None:
    path = quantize("old", statistics_of(source, 3.5))
    tensors, metadata = load_file(path), metadata_of(path)
    for amax in (7.25, 9.0):
        rescale_checkpoint(path, AMAX, statistics_of(source, amax), path, overwrite=True)
    after = load_file(path)
    assert {n for n in tensors if not torch.equal(bits(after[n]), bits(tensors[n]))} == {
        f"{layer}.input_scale" for layer in scales_layers(tensors)
    }
    changed = metadata_of(path)
    record = json.loads(changed.pop("nvfp4_foundry"))
    kept = json.loads(metadata.pop("nvfp4_foundry"))
    assert changed == metadata and changed["author"] == "someone"
    steps = record.pop("rescaled")
    assert record == kept
    assert [step["input_scale"] for step in steps] == ["amax*4.0", "amax*4.0"]
    assert len({step["runs"][0] for step in steps}) == 2
    assert not list(path.parent.glob(".*"))


def scales_layers(tensors: dict[str, torch.Tensor]) -> list[str]:
    suffix = ".input_scale"
    return [name.removesuffix(suffix) for name in tensors if name.endswith(suffix)]


def test_scales_can_be_removed_fixed_or_taken_from_a_file(
    source: Path, quantize: Callable[..., Path], tmp_path: Path
) -> None:
    path, target = quantize("old", statistics_of(source, 3.5)), tmp_path / "t.safetensors"
    rescale_checkpoint(path, parse_policy("dynamic"), None, target)
    assert scales(target) == {}
    assert_same(load_file(target), load_file(quantize("dynamic", None)))
    rescale_checkpoint(target, parse_policy("fixed=0.5"), None, target, overwrite=True)
    assert set(scales(target).values()) == {0.5} and len(scales(target)) == 36
    (tmp_path / "s.json").write_text(json.dumps({Q: 0.25, F8: 0.25}))
    policy = parse_policy(f"file={tmp_path / 's.json'}")
    rescale_checkpoint(target, policy, None, target, overwrite=True)
    assert scales(target) == {f"{Q}.input_scale": 0.25, f"{F8}.input_scale": 1.5}
    assert str(tmp_path) not in json.dumps(metadata_of(target))


def test_a_dry_run_writes_nothing(source: Path, quantize: Callable[..., Path]) -> None:
    path = quantize("old", None)
    before, listing = path.read_bytes(), sorted(path.parent.iterdir())
    report = rescale_checkpoint(path, AMAX, statistics_of(source, 7.25))
    assert report.target == "" and sum(la.after is not None for la in report.layers) == 36
    assert path.read_bytes() == before and sorted(path.parent.iterdir()) == listing


def test_files_of_other_tools_with_a_prefix_and_header_markers_only(
    source: Path, quantize: Callable[..., Path], tmp_path: Path
) -> None:
    """A full checkpoint: the text encoder's layers keep their scales."""
    prefix = "model.diffusion_model."
    old = quantize("old", None)
    ours = load_file(old)
    markers = json.loads(metadata_of(old)["_quantization_metadata"])["layers"]
    tensors = {f"{prefix}{n}": t for n, t in ours.items() if not n.endswith(".comfy_quant")}
    tensors["text_encoders.q.weight"] = torch.zeros(8, 8).to(torch.float8_e4m3fn)
    tensors["text_encoders.q.input_scale"] = torch.tensor(2.0)
    tensors[f"{prefix}{Q}.input_scale"] = torch.tensor([9.0], dtype=torch.bfloat16)
    announced = {f"{prefix}{name}": marker for name, marker in markers.items()}
    announced["text_encoders.q"] = MARKERS["float8_e4m3fn"]
    path = tmp_path / "full.safetensors"
    metadata = {"_quantization_metadata": json.dumps({"layers": announced})}
    save_file(tensors, path, metadata)
    report = rescale_checkpoint(path, AMAX, statistics_of(source, 7.25), path, overwrite=True)
    assert [(la.name, la.before) for la in report.layers if la.before] == [(Q, 9.0)]
    after = load_file(path)
    scale = after.pop(f"{prefix}{Q}.input_scale")
    for name in [name for name in after if name.startswith(prefix) and name.endswith("put_scale")]:
        del after[name]
    assert scale.dtype == torch.float32 and scale.shape == ()
    assert float(scale) == pytest.approx(4 * 7.25 / 2688)
    del tensors[f"{prefix}{Q}.input_scale"]
    assert_same(after, tensors)
    assert metadata_of(path)["_quantization_metadata"] == metadata["_quantization_metadata"]


def test_statistics_of_another_model_are_refused(
    source: Path, quantize: Callable[..., Path], tmp_path: Path, toy_wan: Toy
) -> None:
    path = quantize("old", None)
    before = path.read_bytes()
    for name, tensors, message in (
        ("weights", toy_wan(seed=1), "other weights"),
        ("depth", toy_wan(blocks=3), r"0 layers are missing and 10 are new"),
        ("width", toy_wan(width=32), r"is \("),
    ):
        other = tmp_path / f"{name}.safetensors"
        save_file(tensors, other)
        with pytest.raises(CalibrationError, match=message):
            rescale_checkpoint(path, AMAX, statistics_of(other, 1.0), path, overwrite=True)
    assert path.read_bytes() == before


def test_corrected_biases_do_not_make_another_model(
    source: Path, quantize: Callable[..., Path], tmp_path: Path
) -> None:
    tensors = load_file(quantize("old", None))
    for name in tensors:
        if name.endswith("ffn.2.bias") and name.startswith("blocks."):
            tensors[name] = tensors[name] + 1
    path = tmp_path / "corrected.safetensors"
    save_file(tensors, path)
    statistics = statistics_of(source, 7.25)
    probe = {**statistics.fingerprint.probe, "blocks.0.ffn.2.bias": (0.0,) * 16}
    odd = replace(statistics, fingerprint=replace(statistics.fingerprint, probe=probe))
    compared = rescale_checkpoint(path, AMAX, statistics).compared
    assert rescale_checkpoint(path, AMAX, odd).compared == compared > 0
    unquantized = {**statistics.fingerprint.probe, "head.head.bias": (0.5,) * 16}
    other = replace(statistics, fingerprint=replace(statistics.fingerprint, probe=unquantized))
    with pytest.raises(CalibrationError, match=r"the values of head\.head\.bias differ"):
        rescale_checkpoint(path, AMAX, other)


def test_what_cannot_be_rescaled_is_said(
    source: Path, quantize: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"no layer takes an input_scale.*Quantize the file"):
        rescale_checkpoint(source, parse_policy("dynamic"))
    path = quantize("old", None)
    with pytest.raises(CalibrationError, match=r"amax\*4.0 needs.*choose dynamic"):
        rescale_checkpoint(path, AMAX)
    with pytest.raises(FileError, match="exists"):
        rescale_checkpoint(path, parse_policy("fixed=1"), None, source)
    tensors = load_file(path)
    shards = tmp_path / "shards"
    shards.mkdir()
    weight_map = {}
    for i, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
        save_file({n: tensors[n] for n in names}, shards / f"{i}.safetensors")
        weight_map |= dict.fromkeys(names, f"{i}.safetensors")
    index = shards / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    fixed = parse_policy("fixed=1")
    with pytest.raises(CheckpointError, match="one of several shards"):
        rescale_checkpoint(index, fixed, None, shards / "0.safetensors", overwrite=True)
    with pytest.raises(CheckpointError, match="one of several shards"):
        rescale_checkpoint(index, fixed, None, index, overwrite=True)
    rescale_checkpoint(index, fixed, None, tmp_path / "whole.safetensors")
    assert len(scales(tmp_path / "whole.safetensors")) == 36


def test_stopping_leaves_the_file_alone(source: Path, quantize: Callable[..., Path]) -> None:
    path = quantize("old", None)
    before, listing = path.read_bytes(), sorted(path.parent.iterdir())

    def stop(done: int, total: int, name: str) -> None:
        if 2 * done > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rescale_checkpoint(
            path, parse_policy("fixed=1"), None, path, overwrite=True, on_progress=stop
        )
    assert path.read_bytes() == before and sorted(path.parent.iterdir()) == listing


def test_a_link_stays_a_link(source: Path, quantize: Callable[..., Path], tmp_path: Path) -> None:
    path, link = quantize("old", None), tmp_path / "link.safetensors"
    link.symlink_to(path)
    rescale_checkpoint(link, parse_policy("fixed=1"), None, link, overwrite=True)
    assert link.is_symlink() and len(scales(path)) == 36
