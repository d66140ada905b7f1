"""A bounded run of every fuzzer: each input is read, or refused by name, within its bounds."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .mutations import mutated_bytes, mutated_value
from .one_input import run_input
from .parsers import FUZZERS
from .specimens import Specimens, write_specimens

_EXAMPLES = 6  # for each share of a parser in a long run


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Specimens:
    return write_specimens(tmp_path_factory.mktemp("valid"))


@pytest.mark.parametrize("name", FUZZERS)
def test_every_input_is_read_or_refused_by_name(
    name: str, valid: Specimens, tmp_path: Path
) -> None:
    @settings(
        max_examples=_EXAMPLES * FUZZERS[name][1],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        problem = run_input(name, str(seed), valid, tmp_path / "input")
        assert not problem, f"seed {seed}: {problem}"

    check()


@pytest.mark.parametrize("name", FUZZERS)
def test_a_fuzzer_tells_an_error_without_a_name(
    name: str, valid: Specimens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setitem(FUZZERS, name, (fail, 1))
    assert run_input(name, "1", valid, tmp_path / "input").startswith("unnamed: KeyError")


def test_a_fuzzer_tells_what_never_ends(
    valid: Specimens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*_: object) -> None:
        while True:
            pass

    monkeypatch.setitem(FUZZERS, "rules", (hang, 1))
    monkeypatch.setattr("tests.fuzz.one_input.MOST_SECONDS", 0.2)
    assert run_input("rules", "1", valid, tmp_path / "input").startswith("time: ")


def test_mutations_change_what_they_are_given() -> None:
    data = {"a": [1, 2, {"b": "c"}], "d": None}
    made = [mutated_value(Random(seed), data) for seed in range(200)]
    assert data == {"a": [1, 2, {"b": "c"}], "d": None}
    assert len({repr(value) for value in made}) > 100
    assert (
        sum(mutated_bytes(Random(seed), b"abc" * 100) != b"abc" * 100 for seed in range(100)) > 90
    )
