"""Find what a model lacks: a hole in a list of blocks, a block without a tensor of its brothers.

ComfyUI loads such a file without complaint, as a smaller model or with uninitialised memory. But
the blocks of sound models differ too: the last one of SD3 has no output for the text, some of
LTX-2 have gates, every other one of a mixture of experts has none. So what is known of the model
decides, and otherwise only what cannot be a design: a layer with half of its tensors, or a single
block in the middle that lacks what all others have.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping

from ..errors import IncompleteError
from ..text import shorten
from .architectures import Architecture, detect_architecture
from .architectures.known_models import KnownModel, known_model
from .layers import Inventory

_NAMED = 4
_WAY_OUT = (
    "fetch the file again, or give the original model or another file that holds them as "
    "--complete-from (in the nodes: complete_from)"
)
# Tensors that files call by either name.
_SAME = (("weight", "scale"), ("scale", "weight"))
# The tensors of one layer. If a block has one of them, and all others have both, it lost the other.
_PARTNERS = (("weight", "bias"), ("bias", "weight"))
# How alike blocks must be to be brothers, and how many of them must have what one lacks.
_ALIKE, _MOST = 0.5, 0.75
# A list has numbers as names, or a word before each number (``block3``), which other modules such
# as ``norm1`` and ``norm2`` have as well. How many blocks make a list, without and with dot.
_NUMBERED = re.compile(r"([A-Za-z_]*)(\d+)")
_FEWEST = {False: 4, True: 2}
# A number with more digits is not that of a block, and counting up to it might never end.
_DIGITS = 4

#: What follows ``blocks.3.``, by the number of the block.
_Blocks = Mapping[int, frozenset[str]]


def require_whole(inventory: Inventory) -> None:
    """Refuse a file that lacks a part of its model.

    A MODEL in memory has what ComfyUI built, so only files are checked.

    Raises:
        IncompleteError: the message names what is missing, and the way out.
    """
    if not inventory.file:
        return
    architecture = detect_architecture(inventory)
    missing = missing_parts(inventory, architecture)
    if missing:
        raise IncompleteError(
            f"{inventory.file} is {architecture}, but lacks {shorten(missing, _NAMED)}, which its "
            f"other blocks or all other files of that model have; {_WAY_OUT}"
        )


def missing_parts(inventory: Inventory, architecture: Architecture) -> list[str]:
    """Return the names of blocks and tensors that a model lacks, in order; empty if it is whole."""
    names = _tensor_names(inventory)
    lists = _lists(names)
    holes = [
        hole for container, blocks in lists.items() for hole in _holes(container, blocks, names)
    ]
    found = [name for item in lists.items() for name in _missing_in_blocks(*item)]
    known = known_model(architecture.id)
    if known is not None:
        found += _missing_of_known(names, lists, known)
    inside = tuple(f"{hole}." for hole in holes)
    lost = [n for n in found if not n.startswith(inside) and not _has_alias(n, names)]
    return list(dict.fromkeys([*holes, *lost]))


def _tensor_names(inventory: Inventory) -> set[str]:
    layers = inventory.layers.values()
    return {info.name for layer in layers for info in (layer.tensor, *layer.companions)}


def _lists(names: Collection[str]) -> dict[str, _Blocks]:
    """Return the lists of blocks by what stands before their numbers: ``blocks.``.

    A block has several tensors in modules that have names.
    """
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in names:
        parts = name.split(".")
        for at in range(1, len(parts) - 2):
            number = _NUMBERED.fullmatch(parts[at])
            if number and len(number[2]) <= _DIGITS and not parts[at + 1].isdecimal():
                container = f"{'.'.join(parts[:at])}.{number[1]}"
                found[container][int(number[2])].add(".".join(parts[at + 1 :]))
    return {
        container: {index: frozenset(block) for index, block in sorted(blocks.items())}
        for container, blocks in sorted(found.items())
        if len(blocks) >= _FEWEST[container.endswith(".")] and _are_alike(blocks)
    }


def _are_alike(blocks: Mapping[int, Collection[str]]) -> bool:
    """Whether most blocks of a list have mostly the same tensors."""
    everything = {tensor for block in blocks.values() for tensor in block}
    alike = sum(len(block) >= _ALIKE * len(everything) for block in blocks.values())
    return len(everything) > 1 and alike >= max(2, _ALIKE * len(blocks))


def _holes(container: str, blocks: _Blocks, names: Collection[str]) -> list[str]:
    """Return the blocks that are missing in the numbering of a list.

    The first blocks are missing if nothing has their numbers. In a list that begins with single
    layers, such as ``net.0``, some of those numbers may be of layers without weights.
    """
    first = min(blocks)
    present = _numbers_after(container, names)
    absent = [i for i in range(max(blocks)) if i not in present]
    begins_later = not container.endswith(".") or len([i for i in absent if i < first]) < first
    return [f"{container}{i}" for i in absent if i > first or not begins_later]


def _numbers_after(container: str, names: Collection[str]) -> set[int]:
    """Return the numbers that follow ``container`` as a whole part of a name."""
    tails = (name.removeprefix(container) for name in names if name.startswith(container))
    numbers = (tail.partition(".")[0] for tail in tails if "." in tail)
    return {int(number) for number in numbers if number.isdecimal()}


def _any_in(names: Collection[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _missing_in_blocks(container: str, blocks: _Blocks) -> Iterator[str]:
    """Yield the tensors that a block lacks although its brothers have them."""
    counts = Counter(tensor for block in blocks.values() for tensor in block)
    usual = {tensor for tensor, count in counts.items() if count >= _MOST * len(blocks)}
    for index, block in blocks.items():
        others = [other for i, other in blocks.items() if i != index]
        lacking = sorted(usual - block)
        if len(block) < _ALIKE * len(usual):
            is_cut = index == max(blocks) and len(others) >= 3 and len(set(others)) == 1
            yield from (f"{container}{index}.{t}" for t in lacking if is_cut and block < others[0])
            continue
        of_another_kind = any(counts[t] <= len(blocks) / 2 for t in block)
        inside = min(blocks) < index < max(blocks) and not of_another_kind
        for tensor in lacking:
            is_alone = counts[tensor] == len(blocks) - 1
            if (inside and is_alone) or _has_lost_partner(tensor, block, others):
                yield f"{container}{index}.{tensor}"


def _has_lost_partner(
    tensor: str, block: frozenset[str], others: Collection[frozenset[str]]
) -> bool:
    """Whether a block has only the other tensor of a layer that its brothers have whole."""
    base, _, leaf = tensor.rpartition(".")
    for own, other in _PARTNERS:
        partner = f"{base}.{other}"
        if leaf == own and partner in block:
            have = [brother & {tensor, partner} for brother in others]
            whole = sum(len(pair) == len(_PARTNERS) for pair in have)
            return whole > 0 and not any(len(pair) == 1 for pair in have)
    return False


def _missing_of_known(
    names: Collection[str], lists: Mapping[str, _Blocks], known: KnownModel
) -> Iterator[str]:
    """Yield what all published models have and this one lacks, if it is not another variant.

    A variant lacks a tensor in every block, or one that is not of a layer, or has fewer modules in
    a list.
    """
    for name in names:
        layer, _, leaf = name.rpartition(".")
        weight = f"{layer}.weight"
        if leaf == "bias" and weight not in names and _is_of_layer(weight, known):
            yield weight
    present = {known.template_of(name) for name in names}
    for name in known.missing_from(names):
        template = known.template_of(name)
        if template == name:
            if _is_of_layer(name, known) and _is_begun(name, names):
                yield name
        elif template in present and f"{template.partition('#')[0]}" in lists:
            yield name


def _is_begun(name: str, names: Collection[str]) -> bool:
    """Whether the file has something of every numbered module that a tensor is in."""
    parts = name.split(".")
    numbered = [at for at, part in enumerate(parts) if part.isdecimal()]
    return all(_any_in(names, f"{'.'.join(parts[: at + 1])}.") for at in numbered)


def _is_of_layer(name: str, known: KnownModel) -> bool:
    template = known.template_of(name)
    if not name.endswith(".weight") or not (template in known.every or template in known.some):
        return False
    return known.kind_of(name.removesuffix(".weight")) == "linear"


def _has_alias(name: str, names: Collection[str]) -> bool:
    base, _, leaf = name.rpartition(".")
    return any(leaf == own and f"{base}.{other}" in names for own, other in _SAME)
