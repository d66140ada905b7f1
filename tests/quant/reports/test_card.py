"""Model cards: true, readable by hubs, safe with any name, and enough to make the file again."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import CheckpointSummary, LayerSummary, inspect_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import CheckpointError
from nvfp4_foundry.quant.reports.card import MARKER, model_card, write_card
from nvfp4_foundry.quant.reports.markdown import code, plain, table
from nvfp4_foundry.quant.sources import open_source
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.helpers.command_line import run, run_json
from tests.helpers.conversions import Toy, plan_of

HOSTILE = "x](javascript:1) | <img src=x> `` @a *b* _c_\n# d\x1b[1m\u202e & ~~e~~ ![f](g)"


@pytest.fixture
def made(tmp_path: Path, toy_wan: Toy) -> Path:
    save_file(toy_wan(), tmp_path / "source.safetensors")
    target = tmp_path / "wan_nvfp4.safetensors"
    with open_source(tmp_path / "source.safetensors") as source:
        convert(source, plan_of(source, rounding="mse"), target)
    return target


def cells(card: str, first: str) -> list[str]:
    """Return the cells of the row of a table that begins with a text."""
    row = next(line for line in card.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_card_says_what_the_file_is(made: Path) -> None:
    card_path = write_card(made)
    assert card_path == made.with_suffix(".md")
    card, summary = card_path.read_text(encoding="utf-8"), inspect_checkpoint(made)
    header, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.S).groups()  # type: ignore[union-attr]
    assert "base_model" not in header and "- nvfp4" in header.splitlines()
    overall = summary.overall_error()
    assert overall is not None
    assert f"{overall.error:.2%}; the plain max rule would leave {overall.max_rule:.2%}" in body
    assert cells(body, "made from")[1].startswith("`source.safetensors`")
    for name, count in summary.counts().items():
        assert cells(body, f"`{name}`")[1] == str(count)
    assert "ComfyUI/models/diffusion_models" in body and "*Load Diffusion Model*" in body
    (picture,) = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", body)
    with Image.open(made.parent / picture) as drawn:
        assert drawn.width > 400 and drawn.mode == "RGB"
    assert str(made.parent) not in card


def test_gpus_are_named_as_they_run_the_formats(made: Path) -> None:
    card = model_card(inspect_checkpoint(made), made.name)
    headings = cells(card, "GPU")
    blackwell, ada = cells(card, "Blackwell"), cells(card, "Ada")
    at, eight = headings.index("`nvfp4`"), headings.index("`float8_e4m3fn`")
    assert (blackwell[at], ada[at]) == ("native", "saves memory only")
    assert (blackwell[eight], ada[eight]) == ("native", "native")


def test_the_card_is_enough_to_make_the_file_again(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = write_card(made).read_text(encoding="utf-8")
    (command,) = re.findall(r"^nvfp4 quantize .*$", card, re.M)
    (recipe,) = re.findall(r"```json\n(.*?)\n```", card, re.S)
    (recipe_name,) = re.findall(r"Save the recipe below as `([^`]+)`", card)
    folder = made.parent / "again"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / recipe_name).write_text(recipe)
    (folder / "source.safetensors").write_bytes((made.parent / "source.safetensors").read_bytes())
    assert run(capsys, *shlex.split(command)[1:])[0] == 0
    first, second = load_file(made), load_file(folder / made.name)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        ours, theirs = (t.reshape(-1).view(torch.uint8) for t in (tensor, second[name]))
        assert torch.equal(ours, theirs), name


def test_only_own_cards_and_pictures_are_replaced(made: Path) -> None:
    card, picture = made.with_suffix(".md"), made.with_suffix(".png")
    write_card(made)
    write_card(made)
    card.write_text(card.read_text(encoding="utf-8").replace(MARKER, "mine"), encoding="utf-8")
    with pytest.raises(CheckpointError, match="was not written by this tool"):
        write_card(made)
    assert "mine" in card.read_text(encoding="utf-8")
    write_card(made, overwrite=True)
    Image.new("RGB", (4, 4)).save(picture)
    with pytest.raises(CheckpointError, match="was not written by this tool"):
        write_card(made)


def test_names_are_no_markup() -> None:
    provenance: dict[str, Any] = {
        "tool": HOSTILE, "source": HOSTILE, "created": HOSTILE, "source_digest": HOSTILE,
        "loras": [{"name": HOSTILE, "strength": HOSTILE}], "recipe": {"name": HOSTILE},
        "roundings": {HOSTILE: HOSTILE}, "calibration": {"runs": 3, "prompts": HOSTILE},
    }  # fmt: skip
    layers = (LayerSummary(HOSTILE, "linear", (1, 2), HOSTILE, 4),)
    card = model_card(CheckpointSummary("p", HOSTILE, layers, (), {}, provenance), HOSTILE, HOSTILE)
    assert "\x1b" not in card and "\u202e" not in card
    outside = re.sub(r"(?s)(`{3,})json\n.*?\n\1", "", card)
    outside = re.sub(r"(?m)^!\[Format of each layer\]\([\w%~-]+\)$", "", outside)
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    outside = outside.replace(MARKER, "").replace("<details><summary>Recipe</summary>", "")
    outside = re.sub(r"\\[!-/:-@\[-`{-~]", "", outside.replace("</details>", ""))
    assert not re.search(r"<\w|@a|~~|\*b\*|_c_|\]\(javascript", outside), outside
    assert not re.search(r"^# d", card, re.M)
    for line in outside.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")


@pytest.mark.parametrize("text", ["a", "`", "``x`", " a ", "|", "a|b`c", "", "\n"])
def test_code_is_one_line(text: str) -> None:
    shown = code(text)
    assert "\n" not in shown
    assert plain(text).count("\n") == 0
    fence = re.match("`*", shown)
    assert text.strip() == "" or (fence and fence[0] not in text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("WAN T2V (16 input channels, width 256)", "WAN T2V (16 input channels, width 256)"),
        ("nvfp4-foundry 0.1.0", "nvfp4-foundry 0.1.0"),
        ("a_b", r"a\_b"),
        ("1. one", r"1\. one"),
        ("- one", r"\- one"),
        ("www.a.b", r"www\.a.b"),
        ("[a](b)", r"\[a\](b)"),
        ("https://a.b", r"https\:\/\/a.b"),
    ],
)
def test_only_what_may_be_markup_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_tables_have_their_headings() -> None:
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_file_of_another_tool_has_a_card_too(tmp_path: Path, toy_wan: Toy) -> None:
    save_file(toy_wan(), tmp_path / "plain.safetensors")
    card = write_card(tmp_path / "plain.safetensors").read_text(encoding="utf-8")
    assert "another tool" in card and "Make it again" not in card
    assert "No Linear layer is quantized" in card


def test_the_command(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card, page = made.parent / "README.md", made.parent / "out.html"
    options = ("--card", card, "--base-model", "some/model", "--html", page)
    code_, out, _ = run(capsys, "report", made, *options)
    assert code_ == 0 and f"wrote {card}" in out and f"wrote {page}" in out
    assert "base_model: some/model\n" in card.read_text(encoding="utf-8")
    assert 'id="nvfp4-view"' in page.read_text(encoding="utf-8")
    assert (made.parent / "wan_nvfp4.png").is_file()
    assert run(capsys, "report", made, "--card", card)[0] == 0
    assert run(capsys, "report", made, "--html", page)[0] == 1
    assert run(capsys, "report", made, "--card")[0] == 0
    assert made.with_suffix(".md").is_file()
    assert run(capsys, "report", made, "--card", made, "--overwrite")[0] == 2
    assert run(capsys, "report", made, "--base-model", "a/b")[0] == 2
    assert run(capsys, "report", made, "--card", "--base-model", "a: b")[0] == 1
    code_, data = run_json(capsys, "report", made)
    assert code_ == 0 and data["kind"] == "checkpoint"
    assert json.dumps(data)
