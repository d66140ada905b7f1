"""The inputs of the node that ComfyUI is validating.

ComfyUI repeats the answer of ``validate_inputs`` for each positional input of the function, so that
one problem becomes several messages. So ours have one such input each, and find the others here.
Dynamic inputs are always passed, whether a function asks for them or not: they are keyword-only.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from comfy_execution.utils import get_executing_context

_PROMPT: ContextVar[Mapping[str, Any] | None] = ContextVar("nvfp4_foundry_prompt", default=None)


def remember_prompt(data: dict[str, Any]) -> dict[str, Any]:
    """Remember a prompt that was posted, for the validation that follows in the same task."""
    _PROMPT.set(data.get("prompt"))
    return data


def constant_inputs() -> dict[str, Any]:
    """Return the constant inputs of the node that is being validated, by name.

    Linked inputs are left out. A dynamic input has one entry for its choice, and one entry
    ``choice.name`` for each of its own inputs.
    """
    prompt, context = _PROMPT.get(), get_executing_context()
    if not isinstance(prompt, Mapping) or context is None:
        return {}
    node = prompt.get(context.node_id)
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    if not isinstance(inputs, Mapping):
        return {}
    return {name: value for name, value in inputs.items() if not isinstance(value, list)}
