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

import nodes as comfyui_nodes

from .wrong_inputs import make_refusable, wrong_inputs

_OURS = "NVFP4Foundry"
_PROMPT: ContextVar[Mapping[str, Any] | None] = ContextVar("nvfp4_foundry_prompt", default=None)
_WRONG: ContextVar[Mapping[str, str] | None] = ContextVar("nvfp4_foundry_wrong", default=None)


def remember_prompt(data: dict[str, Any]) -> dict[str, Any]:
    """Remember a prompt that was posted, for the validation that follows in the same task.

    Values of the wrong type are noted first, because ComfyUI changes or leaves out some.
    """
    prompt = data.get("prompt")
    _PROMPT.set(prompt)
    wrong: dict[str, str] = {}
    _WRONG.set(wrong)
    if not isinstance(prompt, dict):
        return data
    classes = {key: _class_of(node) for key, node in prompt.items()}
    outputs = {key: getattr(found, "RETURN_TYPES", ()) for key, found in classes.items()}
    for key, found in classes.items():
        if found is not None and prompt[key]["class_type"].startswith(_OURS):
            if not isinstance(prompt[key].get("inputs"), dict):
                prompt[key]["inputs"] = {}
            types, inputs = found.INPUT_TYPES(), prompt[key]["inputs"]
            problem = next(wrong_inputs(types, inputs), None)
            if problem is not None:
                wrong[key] = problem
            make_refusable(types, inputs, outputs)
    return data


def _class_of(node: Any) -> Any:
    """Return ComfyUI's class for a node of a prompt; None if there is none."""
    name = node.get("class_type") if isinstance(node, dict) else None
    # ComfyUI's nodes.py, not this pack's folder of that name
    classes = comfyui_nodes.NODE_CLASS_MAPPINGS  # pyright: ignore[reportAttributeAccessIssue]
    return classes.get(name) if isinstance(name, str) else None


def wrong_input() -> str | None:
    """Return which value of the node that is being validated has the wrong type; None if none."""
    wrong, context = _WRONG.get(), get_executing_context()
    return wrong.get(context.node_id) if wrong and context is not None else None


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
