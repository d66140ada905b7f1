"""Which outputs of a node lead to something that runs."""

from __future__ import annotations

from typing import Any

from nvfp4_foundry.nodes.prompts.used_outputs import used_outputs

PROMPT: dict[str, Any] = {
    "q": {"inputs": {"model": ["m", 0], "preview": "x"}},
    "m": {"inputs": {}},
    "save": {"inputs": {"checkpoint": ["q", 1]}},
    "shift": {"inputs": {"model": ["q", 0]}},
    "sample": {"inputs": {"model": ["shift", 0], "steps": [1, 2, 3]}},
    "image": {"inputs": {"images": ["sample", 0], "gone": ["absent", 0]}},
}


def test_only_what_leads_to_a_target_counts() -> None:
    assert used_outputs(PROMPT, "q", ["save", "image"]) == {0, 1}
    assert used_outputs(PROMPT, "q", ["save"]) == {1}
    assert used_outputs(PROMPT, "q", ["image"]) == {0}
    assert used_outputs(PROMPT, "q", ["q", "m", "absent"]) == frozenset()


def test_circles_end() -> None:
    circle = {"a": {"inputs": {"x": ["b", 0]}}, "b": {"inputs": {"x": ["a", 0], "y": ["q", 2]}}}
    assert used_outputs(circle, "q", ["a"]) == {2}
