"""Values of the wrong type in a prompt, as programs may send them.

ComfyUI turns some into text, a file name ``None`` for one, and fails on others before a node can
refuse them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

_DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
_LINK = 2
_SHOWN = 60


def wrong_inputs(types: Mapping[str, Any], inputs: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the constants of a node, and choose something where it has to be.

    Args:
        types: the inputs of the node, as ComfyUI lists them: ``required`` and ``optional``.
        inputs: the values in the prompt.
    """
    for name, (kind, options) in _listed(types):
        yield from _wrong(name, kind, options, inputs)


def _listed(types: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    for group in ("required", "optional"):
        for name, (kind, *options) in types.get(group, {}).items():
            yield prefix + name, (kind, options[0] if options else {})


def _wrong(
    name: str, kind: Any, options: Mapping[str, Any], inputs: Mapping[str, Any]
) -> Iterator[str]:
    if kind == _DYNAMIC_COMBO:
        chosen = _constant(inputs.get(name))
        option = next((o for o in options["options"] if o["key"] == chosen), None)
        if option is None:
            keys = ", ".join(str(o["key"]) for o in options["options"])
            yield f"{name} is {_shown(chosen)}; choose one of {keys}"
            return
        for nested, (kind_, options_) in _listed(option["inputs"], f"{name}."):
            yield from _wrong(nested, kind_, options_, inputs)
    elif name in inputs and not isinstance(inputs[name], list):
        value = _constant(inputs[name])
        wanted = _why_not(kind, value)
        if wanted:
            yield f"{name} is {_shown(value)}, but it must be {wanted}"


def _why_not(kind: Any, value: Any) -> str | None:
    """Return what a value of this kind must be, if this one is not; None if it is."""
    if kind == "STRING":
        is_text = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        return None if is_text else "text"
    if kind == "COMBO":
        return None if isinstance(value, str) else "one of its choices"
    if kind in ("INT", "FLOAT"):
        return None if _is_finite(value) else "a number"
    if kind == "BOOLEAN":
        return None if value in (True, False) else "true or false"
    return None


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _constant(value: Any) -> Any:
    # ComfyUI's way to give a list as a value: a list alone is a link
    return value.get("__value__", value) if isinstance(value, dict) else value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def make_refusable(
    types: Mapping[str, Any], inputs: MutableMapping[str, Any], outputs: Mapping[str, Any]
) -> None:
    """Change a node in a prompt so that ComfyUI can validate it, and refuses what is wrong with it.

    A link to nothing gets a third part, which ComfyUI refuses by name; it would fail on two. An
    unknown choice becomes a known one, because ComfyUI leaves an unknown one out and does not ask
    the node. `wrong_inputs` must have been asked before.

    Args:
        types: the inputs of the node, as ComfyUI lists them.
        inputs: its values in the prompt.
        outputs: the types of the outputs of each node in the prompt, by id.
    """
    for name, value in inputs.items():
        if isinstance(value, list) and len(value) == _LINK and not _leads(value, outputs):
            inputs[name] = [*value, None]
    for name, (kind, options) in _listed(types):
        keys = [option["key"] for option in options["options"]] if kind == _DYNAMIC_COMBO else []
        if keys and inputs.get(name) not in keys:
            inputs[name] = keys[0]


def _leads(link: list[Any], outputs: Mapping[str, Any]) -> bool:
    origin, number = link
    if not isinstance(origin, str) or origin not in outputs:
        return False
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        return False
    try:
        # rather than its length: some packs have a sequence that answers to any number
        outputs[origin][number]
    except (IndexError, KeyError, TypeError):
        return False
    return True
