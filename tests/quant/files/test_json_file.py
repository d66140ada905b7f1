"""JSON of others is read within bounds, and what cannot be held is refused by its reason."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from nvfp4_foundry.quant.errors import FileError
from nvfp4_foundry.quant.files.json_file import (
    LARGEST,
    parse_json,
    parse_object,
    read_json,
    read_json_object,
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 65 + "]" * 65, "nests too deeply"),
        ("[" * 100_000, "nests too deeply"),
        ('{"a":' * 500 + "1" + "}" * 500, "nests too deeply"),
        ("9" * 6000, "6000 digits"),
        ('{"a": -' + "1" * 41 + "}", "42 digits"),
        ("[1e999]", "too large"),
        ("[-Infinity]", "no number in JSON"),
        ('{"a": NaN}', "no number in JSON"),
        ('["\\ud800"]', "half of a character"),
        ('{"\\udfff": 1}', "half of a character"),
        ('{"a\\u0000b": 1}', "NUL"),
        (b"\xff\xfe[", "not text"),
        (b'["\xed\xa0\x80"]', "not text"),
        ("[1,]", "Illegal|Expecting"),
        ("", "Expecting"),
    ],
)
def test_what_nothing_can_hold_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_names_may_have_to_be_unique() -> None:
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="'a' twice"):
        parse_json('{"a": 1, "a": 2}', unique_names=True)


def test_measured_values_may_be_endless() -> None:
    low, high, nan = parse_json("[-Infinity, 1e999, NaN]", endless=True)
    assert low == -high and nan != nan


def test_usual_json_is_read_as_python_reads_it() -> None:
    data = {"é": [1, -2.5, None, True, "\x1b", "\U0001f600", {"n": 2**64}], "": {}}
    for text in (json.dumps(data), json.dumps(data, ensure_ascii=False)):
        assert parse_json(text) == parse_json(text.encode()) == data
    assert parse_json(b"\xef\xbb\xbf[1]") == [1]


def test_more_values_than_any_model_has_are_refused_before_they_take_memory() -> None:
    text = "[" + "{}," * 3_000_000 + "{}]"
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more values"):
            parse_json(text)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_large_files_are_refused_without_reading_them(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(ValueError, match=f"more than {LARGEST} bytes"):
        read_json(path)
    assert read_json_object(path) == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="pipe"):
        read_json(tmp_path / "pipe")
    assert read_json_object(tmp_path / "pipe") == {}


@pytest.mark.parametrize("text", [None, "", "[1]", "{", "null", '{"a":' * 100])
def test_a_text_of_a_header_that_is_no_object_counts_as_absent(text: str | None) -> None:
    assert parse_object(text) == {}
