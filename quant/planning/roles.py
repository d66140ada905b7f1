"""What the Linear layers of a model do, beside attention and feed-forward.

A role is known by a layer's name or by its shape. The names are those that models use for one
thing, whatever the family: ``mod_x``, ``adaLN_modulation``, ``norm1.linear``. The shapes are what
such a layer has by its function: modulation turns the embedding of the time into several vectors of
the model's width, and a gate has far fewer channels than the model.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain
from math import prod
from typing import Literal

Role = Literal["modulation", "adapter", "embedder", "gate", "expert"]
ROLES: tuple[Role, ...] = ("modulation", "adapter", "embedder", "gate", "expert")

Shape = tuple[int, ...]

#: A layer with this many times fewer inputs or outputs than the width of the model is a gate.
_NARROW = 8
#: How many vectors of the model's width modulation makes; attention and feed-forward make 3 to 5.
_ONLY_MODULATION = (6, 9, 12, 18)

# Each pattern is for one part of a dotted name.
_ADAPTER = re.compile(
    r"\w*adapt[eo]r\w*|\w*connector\w*|\w*refiner\w*|\w*fusion|\w*injector|\w*resampler|"
    r"\w+_encoder|(de)?tokenizer|\w*projectors?|(before|after)_proj|visual|vision(_model|_tower)?|audio_tower|"
    r"\w*distilled_guidance\w*|nerf_\w+|dec_net"
)
_MODULATION = re.compile(
    r"(\w+_)?mod(ulat\w*)?([_A-Z\d]\w*)?|(\w*_)?[Aa]da(?!p)\w*|\w*[Ss]cale_[Ss]hift\w*|emb_layers|"
    r"(time_?|t_?)proj\w*|temb\w*|t_block|mapper(_\w+)?"
)
_NORM = re.compile(r"\w*norm\w*")
_EMBEDDER = re.compile(r"\w*embed\w*")
_GATE = re.compile(r"\w*gate_logits|\w*router\w*")
_EXPERTS = re.compile(r"(^|\.)(\w+_)?experts\.\d+\.")
_ATTENTION_OR_FFN = re.compile(
    r"\w*attn\w*|\w*attention\w*|\w*mlp\w*|(\w+_)?ff(n|_\w+)?|\w*feed_forward\w*|\w*qkv\w*|"
    r"(\w+_)?[qkvo]|\w*(query|key|value|kv|proj)\w*|fc\d|w\d|linear_?\d|layer\d|up|down|gate",
    re.IGNORECASE,
)
_KEY_OR_VALUE = re.compile(r"\w*(to_[kv]|[kv]_proj|w[kv]|key|value|kv)\w*|[kv]", re.IGNORECASE)
_TIME = re.compile(r"\w*time\w*|t_emb\w*|t_embedder\d*|tmlp|t_block")


def find_roles(
    shapes: Mapping[str, Shape], linears: Iterable[str], containers: Mapping[str, str]
) -> dict[str, Role]:
    """Return the roles of Linear layers by name. Attention and feed-forward have none.

    Args:
        shapes: the shapes ``(out, in)`` of all layers of a model.
        linears: the Linear layers among them.
        containers: by layer, the list of blocks that the layer is in; no entry if it is in none.
    """
    found: dict[str, Role] = {}
    unnamed: dict[str, list[str]] = defaultdict(list)
    times: set[int] = set()
    for name in linears:
        role = _by_name(name)
        if role:
            found[name] = role
        elif name in containers:
            unnamed[containers[name]].append(name)
        is_shared = role == "modulation" and name not in containers
        if is_shared or any(_TIME.fullmatch(part) for part in name.split(".")):
            times.add(shapes[name][0])  # the width of an embedding of the time
    narrow = _main_width(chain(*unnamed.values()), shapes) // _NARROW
    for names in unnamed.values():
        widths = _widths(names, shapes)
        for name in names:
            role = _by_shape(name, shapes, widths, times, narrow)
            if role:
                found[name] = role
    return found


def _by_name(name: str) -> Role | None:
    parts = name.split(".")
    if any(_ADAPTER.fullmatch(part) for part in parts):
        return "adapter"
    if any(_MODULATION.fullmatch(part) for part in parts):
        return "modulation"
    if any(_NORM.fullmatch(part) for part in parts[:-1]):
        return "modulation"  # a norm that has a Linear makes its scale and shift with it
    if any(_EMBEDDER.fullmatch(part) for part in parts):
        return "embedder"
    if any(_GATE.fullmatch(part) for part in parts):
        return "gate"
    return "expert" if _EXPERTS.search(name) else None


def _main_width(names: Iterable[str], shapes: Mapping[str, Shape]) -> int:
    """Return the number of inputs of the layers that hold the most weights; 0 without layers."""
    weights: Counter[int] = Counter()
    for name in names:
        weights[shapes[name][-1]] += prod(shapes[name])
    return weights.most_common(1)[0][0] if weights else 0


def _widths(names: Iterable[str], shapes: Mapping[str, Shape]) -> frozenset[int]:
    """Return the widths of a list of blocks: inputs of layers that are also outputs of layers."""
    listed = [shapes[name] for name in names]
    return frozenset(s[1] for s in listed) & frozenset(s[0] for s in listed)


def _by_shape(
    name: str,
    shapes: Mapping[str, Shape],
    widths: frozenset[int],
    times: set[int],
    narrow: int,
) -> Role | None:
    """Return the role of a layer of a block that its name does not tell."""
    *_, outputs, inputs = shapes[name]  # a bank of experts has one more
    parts = name.split(".")
    is_usual = any(_ATTENTION_OR_FFN.fullmatch(part) for part in parts)
    several = {outputs // width for width in widths if outputs % width == 0} - {1}
    if several and inputs in times - widths and not is_usual:
        return "modulation"
    if min(outputs, inputs) <= narrow and not _KEY_OR_VALUE.fullmatch(parts[-1]):
        return "gate"
    if is_usual or not several or inputs not in widths:
        return None
    is_modulation = several & set(_ONLY_MODULATION) or _follows_activation(parts, shapes)
    return "modulation" if is_modulation else None


def _follows_activation(parts: list[str], shapes: Mapping[str, Shape]) -> bool:
    """Whether a layer is the first of a sequence that starts with an activation.

    Only modulation has that: the activation is applied to the embedding of the time.
    """
    return parts[-1] == "1" and ".".join([*parts[:-1], "0"]) not in shapes
