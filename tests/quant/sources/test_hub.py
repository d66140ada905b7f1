"""``hf://`` locations, against a stand-in of huggingface_hub's cache and without a network."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.calibration import CalibrationStatistics, save_statistics
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.fingerprint import ModelFingerprint
from nvfp4_foundry.quant.sources import open_source, open_tensors
from nvfp4_foundry.quant.sources.hub import HubLocation, fetch_from_hub, parse_hub_location
from safetensors.torch import save_file

from tests.helpers.command_line import run, run_json

COMMIT, OLDER = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("hf://o/r/a.safetensors", HubLocation("o/r", "a.safetensors")),
        ("hf://o/r/x/y/a.gguf@v1", HubLocation("o/r", "x/y/a.gguf", "v1")),
        ("hf://o/r/a.gguf@refs/pr/1", HubLocation("o/r", "a.gguf", "refs/pr/1")),
        ("hf://o/r@v1/x/a.gguf", HubLocation("o/r", "x/a.gguf", "v1")),
        ("hf://o/r/transformer/", HubLocation("o/r", "transformer")),
        ("hf://o/r", HubLocation("o/r", "")),
        ("hf://o/r@v1", HubLocation("o/r", "", "v1")),
    ],
)
def test_locations(text: str, location: HubLocation) -> None:
    assert parse_hub_location(text) == location


@pytest.mark.parametrize("text", ["hf://", "hf://o", "hf:///r/a.gguf", "hf://o/r/model.bin"])
def test_what_is_no_location(text: str) -> None:
    with pytest.raises(SourceError, match=text):
        parse_hub_location(text)


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SourceError, match=r"pip install huggingface_hub"):
        open_source("hf://o/r/a.safetensors")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache in the library's layout: blobs, and snapshots that link to them."""
    constants = pytest.importorskip(
        "huggingface_hub.constants", reason="huggingface_hub is missing"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repo = tmp_path / "hub" / "models--owner--repo"
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "refs" / "old").write_text(OLDER)
    add(repo, COMMIT, "model.safetensors", {"a.weight": torch.full((2, 2), 3.0)})
    add(repo, OLDER, "model.safetensors", {"a.weight": torch.full((2, 2), 1.0)})
    shards = {
        "transformer/m-00001-of-00002.safetensors": {"b.weight": torch.ones(1, 2)},
        "transformer/m-00002-of-00002.safetensors": {"c.weight": torch.ones(2, 1)},
    }
    for name, tensors in shards.items():
        add(repo, COMMIT, name, tensors)
    weight_map = {n: name.partition("/")[2] for name, ts in shards.items() for n in ts}
    add(repo, COMMIT, "transformer/m.safetensors.index.json", {"weight_map": weight_map})
    return repo.parent


def add(repo: Path, commit: str, name: str, content: dict) -> None:
    blob = repo / "blobs" / f"{commit[:2]}-{name.replace('/', '-')}"
    if name.endswith(".json"):
        blob.write_text(json.dumps(content))
    else:
        save_file(content, blob)
    link = repo / "snapshots" / commit / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))


def test_a_file_of_each_revision(cache: Path) -> None:
    for text, value in (("model.safetensors", 3.0), ("model.safetensors@old", 1.0),
                        (f"model.safetensors@{OLDER}", 1.0)):  # fmt: skip
        with open_source(f"hf://owner/repo/{text}") as source:
            assert float(source.load("a.weight")[0, 0]) == value
            assert source.notes == (f"fetched from hf://owner/repo/{text}",)
            assert cache in source.paths[0].parents


@pytest.mark.parametrize("path", ["transformer/", "transformer/m.safetensors.index.json"])
def test_shards_by_folder_and_by_index(path: str, cache: Path) -> None:
    with open_tensors(f"hf://owner/repo/{path}") as source:
        assert set(source.tensors) == {"b.weight", "c.weight"}


def test_another_cache_folder(cache: Path, tmp_path: Path) -> None:
    assert fetch_from_hub("hf://owner/repo/model.safetensors", cache).is_file()
    with pytest.raises(SourceError, match=r"cannot fetch hf://owner/repo/model\.safetensors"):
        fetch_from_hub("hf://owner/repo/model.safetensors", tmp_path / "empty")


@pytest.mark.parametrize("path", ["absent.safetensors", "absent/"])
def test_what_is_not_there(path: str, cache: Path) -> None:
    with pytest.raises(SourceError, match=r"hf://owner/repo/absent|no folder absent"):
        open_tensors(f"hf://owner/repo/{path}")


def test_the_command_line(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, summary = run_json(capsys, "inspect", "hf://owner/repo/model.safetensors@old")
    assert code == 0 and summary["layers"][0]["name"] == "a"
    code, _, error = run(capsys, "plan", "hf://owner/repo/none.gguf", "--preset", "smart")
    assert code == 1 and "cannot fetch hf://owner/repo/none.gguf" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "HUB"),
        ("verify", "HUB"),
        ("verify", MODEL_PATH, "--source", "HUB"),
        ("compare", MODEL_PATH, "HUB"),
        ("rescale", "HUB", "--input-scale", "dynamic", "--dry-run"),
        ("quantize", "HUB", "made.safetensors", "--preset", "all"),
        ("plan", MODEL_PATH, "--complete-from", "HUB", "--preset", "all"),
        ("sensitivity", "HUB", "--calibration", "STATISTICS", "--output", "sensitivity.json"),
        ("stats", "import", __file__, "--model", "HUB", "--output", "o.safetensors"),
        ("recipe", "from-checkpoint", "HUB"),
        ("recipe", "from-gguf", "HUB"),
    ],
)
def test_every_command_takes_a_model_from_the_hub(
    arguments: tuple[str, ...],
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each one tries to fetch the file by its whole name."""
    statistics = tmp_path / "statistics.safetensors"
    save_statistics(CalibrationStatistics({}, ModelFingerprint({}, {}), (), 0, ()), statistics)
    stand_ins = {"HUB": "hf://owner/repo/none.gguf", "STATISTICS": statistics}
    code, _, error = run(capsys, *(stand_ins.get(a, a) for a in arguments))
    assert code == 1 and "cannot fetch hf://owner/repo/none.gguf" in error
