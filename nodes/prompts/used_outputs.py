"""Which outputs of a node a running prompt uses."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

_LINK = 2


def used_outputs(prompt: Mapping[str, Any], node: str, targets: Collection[str]) -> frozenset[int]:
    """Return the numbers of the outputs of a node that the targets depend on.

    Args:
        prompt: the nodes by id, in API form.
        node: the id of the node.
        targets: the ids of the nodes that ComfyUI was asked to run.
    """
    used: set[int] = set()
    seen: set[str] = set()
    waiting = [target for target in targets if target in prompt]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for origin, output in _links(prompt[name]):
            if origin == node:
                used.add(output)
            elif origin in prompt:
                waiting.append(origin)
    return frozenset(used)


def _links(node: Any) -> Iterator[tuple[str, int]]:
    """Yield the id and the output of each node that this one takes an input from."""
    for value in node.get("inputs", {}).values():
        if isinstance(value, list) and len(value) == _LINK and isinstance(value[0], str):
            yield value[0], int(value[1])
