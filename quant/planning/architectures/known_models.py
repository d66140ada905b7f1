"""What ComfyUI builds for each model it knows: generated from ComfyUI's own classes.

``known/ID.json`` describes the published models of one architecture, by
``tests/data/write_known_models.py``. A number that counts blocks is written ``#`` there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ..layers import Kind
from .folding import expand

_FOLDER = Path(__file__).with_name("known")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


@dataclass(frozen=True)
class KnownModel:
    """The modules of an architecture, as ComfyUI builds them.

    ``lists`` names the lists of blocks. ``every`` holds the tensors that all published models
    have, in every block where the name counts blocks, and ``some`` those that only some have.
    ``others`` holds the matrices among them that are no weights of ComfyUI's Linear, with their
    kind, and ``rewritten`` those that the loader changes. ``banks`` are weights of experts with
    three dimensions, which ComfyUI decodes one expert at a time. The detection takes a file for
    another model if ``shapes_read`` are packed, or ``rows_read`` get other numbers of rows.
    """

    lists: tuple[str, ...]
    every: frozenset[str]
    some: frozenset[str]
    others: Mapping[str, Kind]
    rewritten: frozenset[str] = frozenset()
    banks: frozenset[str] = frozenset()
    shapes_read: tuple[str, ...] = ()
    rows_read: tuple[str, ...] = ()
    since: str = ""
    _by_pattern: dict[str, Kind | None] = field(default_factory=dict, repr=False, compare=False)

    def kind_of(self, layer: str) -> Kind | None:
        """Return the kind of the matrix of a layer; None if no published model has the layer."""
        template = f"{self.template_of(layer)}.weight"
        if template in self.others:
            return self.others[template]
        if template in self.every or template in self.some:
            return "linear"
        return self._kinds_of_all_numbers.get(_NUMBER.sub("#", template))

    def is_rewritten(self, layer: str) -> bool:
        """Whether ComfyUI's loader changes the weight of a layer, so it must stay as it is."""
        return f"{self.template_of(layer)}.weight" in self.rewritten

    def is_bank(self, layer: str) -> bool:
        """Whether a layer is a bank of experts."""
        return f"{self.template_of(layer)}.weight" in self.banks

    def missing_from(self, names: Collection[str]) -> Iterator[str]:
        """Yield the tensors that every published model has and these names lack."""
        present = set(names)
        counts = self._block_counts(present)
        for template in sorted(self.every):
            prefix, counted, rest = template.partition(".#.")
            wanted = (
                (f"{prefix}.{i}.{rest}" for i in range(counts.get(prefix, 0)))
                if counted
                else (template,)
            )
            yield from (name for name in wanted if name not in present)

    def _block_counts(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many blocks each list has, by the highest number of a block we know."""
        counts: dict[str, int] = {}
        for name in names:
            template = self.template_of(name)
            if template in self.every and ".#." in template:
                prefix = template.partition(".#.")[0]
                number = int(name[len(prefix) + 1 :].partition(".")[0])
                counts[prefix] = max(counts.get(prefix, 0), number + 1)
        return counts

    def template_of(self, name: str) -> str:
        """Return a name with ``#`` for the number of its block."""
        for prefix in self.lists:
            if name.startswith(f"{prefix}."):
                number, dot, rest = name[len(prefix) + 1 :].partition(".")
                if number.isdecimal():
                    return f"{prefix}.#{dot}{rest}"
        return name

    @cached_property
    def _kinds_of_all_numbers(self) -> dict[str, Kind]:
        """The kinds by names without any number, where all of one such name are alike."""
        found: dict[str, set[Kind]] = {}
        for template in (*self.every, *self.some):
            kinds = found.setdefault(_NUMBER.sub("#", template), set())
            kinds.add(self.others.get(template, "linear"))
        return {name: kinds.pop() for name, kinds in found.items() if len(kinds) == 1}


@lru_cache(maxsize=8)
def known_model(architecture_id: str) -> KnownModel | None:
    """Return what is known of the modules of an architecture; None if nothing is."""
    path = _FOLDER / f"{architecture_id}.json"
    if not path.is_file():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    others: dict[str, Kind] = {
        name: kind for kind in ("embedding", "parameter") for name in _names(data, kind)
    }
    return KnownModel(
        lists=tuple(data["lists"]),
        every=frozenset(_names(data, "every")),
        some=frozenset(_names(data, "some")),
        others=others,
        rewritten=frozenset(_names(data, "rewritten")),
        banks=frozenset(_names(data, "bank")),
        shapes_read=tuple(data.get("shapes_read", ())),
        rows_read=tuple(data.get("rows_read", ())),
        since=data.get("since", ""),
    )


def _names(data: Mapping[str, Any], key: str) -> Iterator[str]:
    for folded in data.get(key, ()):
        yield from expand(folded)
