"""Values of the wrong type in a prompt, and links to nothing."""

from __future__ import annotations

from typing import Any

import pytest
from nvfp4_foundry.nodes.prompts.wrong_inputs import make_refusable, wrong_inputs

CHOICE = {
    "options": [
        {"key": "all", "inputs": {}},
        {"key": "file", "inputs": {"required": {"name": ("COMBO", {})}}},
    ]
}
TYPES = {
    "required": {
        "name": ("STRING", {}), "count": ("INT", {}), "size": ("FLOAT", {}),
        "choice": ("COMFY_DYNAMICCOMBO_V3", CHOICE), "model": ("MODEL",),
    },
    "optional": {"card": ("BOOLEAN", {}), "kind": ("COMBO", {})},
}  # fmt: skip
GOOD = {"name": "x", "count": 1, "size": 0.5, "choice": "all", "card": True, "kind": "a"}


def wrong(**changes: Any) -> list[str]:
    return list(wrong_inputs(TYPES, {**GOOD, **changes}))


def test_good_values_and_links_are_left_alone() -> None:
    assert wrong(name=5, count="7", size="1e3", model=["m", 0], kind=["k", 0]) == []
    assert wrong(choice="file", **{"choice.name": "x"}) == []
    assert wrong(name={"__value__": "x"}) == []


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("name", None, "text"), ("name", True, "text"), ("name", {"__value__": ["x"]}, "text"),
        ("count", float("nan"), "a number"), ("size", 10**400, "a number"),
        ("size", {}, "a number"), ("card", "no", "true or false"), ("kind", 3, "one of its"),
        ("choice", "none", "choose one of all, file"), ("choice", ["x", 0], "choose one of"),
        ("choice", None, "choose one of"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(name: str, value: Any, wanted: str) -> None:
    (problem,) = wrong(**{name: value})
    assert problem.startswith(f"{name} is ") and wanted in problem and len(problem) < 200


def test_the_inputs_of_the_chosen_option_are_checked() -> None:
    (problem,) = wrong(choice="file", **{"choice.name": {}})
    assert problem.startswith("choice.name is {}")


@pytest.mark.parametrize("link", [["a", "b"], ["m", 3], ["m", -1], ["m", True], [0, 0], [{}, 0]])
def test_a_link_to_nothing_can_be_refused(link: list[Any]) -> None:
    inputs = {**GOOD, "name": link, "choice": ["m", 0]}
    make_refusable(TYPES, inputs, {"m": ("MODEL", "CLIP")})
    assert inputs["name"] == [*link, None] and inputs["choice"] == "all"


def test_a_good_link_stays() -> None:
    inputs = {**GOOD, "model": ["m", 1]}
    make_refusable(TYPES, inputs, {"m": ("MODEL", "CLIP")})
    assert inputs == {**GOOD, "model": ["m", 1]}


def test_some_packs_have_any_number_of_outputs() -> None:
    class Anything(tuple[str, ...]):
        def __getitem__(self, index: Any) -> Any:
            return "*"

    inputs = {**GOOD, "model": ["m", 7]}
    make_refusable(TYPES, inputs, {"m": Anything()})
    assert inputs["model"] == ["m", 7]
