"""Finding the LoRA files that nodes apply, because patches on a MODEL do not name their files.

Works on a prompt in ComfyUI's API form: nodes by id, each with ``class_type`` and ``inputs``, where
a link is ``[node id, output number]``. Needs no ComfyUI.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...quant.sources import AppliedLora

#: Returns the type of a node class's output by number, or None if it is unknown.
OutputType = Callable[[str, int], str | None]

# Outputs that bring no LoRA into a MODEL. A LoRA on a CLIP does not change the model.
_OTHER_TYPES = frozenset({
    "AUDIO", "BOOLEAN", "CLIP", "CLIP_VISION", "CLIP_VISION_OUTPUT", "COMBO", "CONDITIONING",
    "CONTROL_NET", "FLOAT", "HOOKS", "IMAGE", "INT", "LATENT", "MASK", "NOISE", "SAMPLER", "SIGMAS",
    "STRING", "VAE",
})  # fmt: skip

# The names that stock nodes and common packs give the strength on the model, best first. Nodes that
# load several LoRAs number these names like the files.
_STRENGTHS = (
    "strength_model", "model_strength", "model_str", "model_weight", "strength", "lora_strength",
    "lora_weight", "lora_wt", "weight",
)  # fmt: skip
_SWITCHES = ("on", "enabled", "switch", "toggle")
_OFF = (False, "Off", "off")
_NUMBER = re.compile(r"_?\d+$")
# A longer chain of primitives is a loop.
_LONGEST_CHAIN = 16


def find_loras(
    prompt: Mapping[str, Mapping[str, Any]],
    node_id: str,
    lora_files: Collection[str],
    output_type: OutputType,
    *,
    input_name: str = "model",
    expanded: Mapping[str, str] | None = None,
) -> tuple[AppliedLora, ...]:
    """Return the LoRAs on the way to a node's input, in the order in which they are applied.

    Follows the links from that input and finds node inputs whose value is one of the files.
    LoRAs with strength 0, switched off, or in bypass mode (not merged into weights) are left out.
    If a node switches between several models, the LoRAs of all of them count.

    Args:
        prompt: nodes by id; if it lacks the node, there are no LoRAs.
        node_id: the node to start from.
        lora_files: names as ComfyUI lists them in its ``loras`` folders.
        output_type: tells which links may carry a LoRA.
        input_name: the input to start from.
        expanded: maps nodes that were created while running to the nodes that they replace, by id.
    """
    search = _Search(prompt, frozenset(lora_files), output_type, expanded or {})
    search.follow(_inputs(prompt.get(node_id)).get(input_name))
    return tuple(search.found)


@dataclass
class _Search:
    """A walk up a prompt; ``found`` lists the LoRAs in the order in which they are applied."""

    prompt: Mapping[str, Mapping[str, Any]]
    files: frozenset[str]
    output_type: OutputType
    expanded: Mapping[str, str]
    found: list[AppliedLora] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def follow(self, value: Any) -> None:
        """Visit the node that a link leads to, if the link may carry a LoRA."""
        if not _is_link(value):
            return
        node = self.prompt.get(value[0])
        if node is None or value[0] in self._seen:
            return
        if self.output_type(str(node.get("class_type")), int(value[1])) not in _OTHER_TYPES:
            self._visit(value[0], node)

    def _visit(self, node_id: str, node: Mapping[str, Any]) -> None:
        self._seen.add(node_id)
        inputs = _inputs(node)
        for value in inputs.values():
            self.follow(value)
        named = [] if _is_bypass(node) else list(self._named_in(inputs))
        self.found += [lora for lora in named if lora.strength != 0]
        if not named:
            for child in [c for c, parent in self.expanded.items() if parent == node_id]:
                self.follow([child, 0])

    def _named_in(self, inputs: Mapping[str, Any]) -> Iterator[AppliedLora]:
        """Yield the LoRAs that a node's own inputs name, except those that are switched off."""
        for key, given in inputs.items():
            value = self._literal(given)
            if isinstance(value, Mapping):  # one widget for file, switch and strength
                yield from self._named_in(value)
            elif isinstance(value, str) and value in self.files:
                number = _NUMBER.search(key)
                suffix = number.group() if number else ""
                if not any(self._literal(inputs.get(s + suffix)) in _OFF for s in _SWITCHES):
                    yield AppliedLora(value, self._strength(inputs, suffix))

    def _strength(self, inputs: Mapping[str, Any], suffix: str) -> float | None:
        for name in (*(s + suffix for s in _STRENGTHS), *_STRENGTHS):
            if name in inputs:
                value = self._literal(inputs[name])
                is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
                return float(value) if is_number else None
        return None

    def _literal(self, value: Any) -> Any:
        """Return an input's value, following nodes that only hold a value; None if computed."""
        for _ in range(_LONGEST_CHAIN):
            if not _is_link(value):
                return value
            inputs = _inputs(self.prompt.get(value[0]))
            if len(inputs) != 1:
                return None
            (value,) = inputs.values()
        return None


def _inputs(node: Mapping[str, Any] | None) -> Mapping[str, Any]:
    inputs = node.get("inputs") if node else None
    return inputs if isinstance(inputs, Mapping) else {}


def _is_link(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], (int, float))
    )


def _is_bypass(node: Mapping[str, Any]) -> bool:
    return "bypass" in str(node.get("class_type")).lower()
