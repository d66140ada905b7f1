"""Turn a plan into a recipe that names every layer, so that it can be saved and used again."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ..planning.plan import PlannedLayer
from ..planning.recipe import Recipe, Rule

# The parts of a name that a pattern would interpret: glob characters, and "re:" at the start.
_SPECIAL = re.compile(r"[*?\[]|\Ar(?=e:)")


def exact_recipe(
    base: Recipe,
    layers: Iterable[PlannedLayer],
    chosen: Collection[str],
    *,
    name: str,
    description: str,
) -> Recipe:
    """Return a recipe that gives each layer its planned format, by name.

    Everything else, such as rounding, architectures and default, is taken from ``base``.
    ``chosen`` names the layers whose format was not chosen by ``base``. It decides the reason
    that a rule shows.
    """
    patterns: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        if layer.format != base.default:
            why = "mix" if layer.name in chosen else f"as in {base.name}"
            patterns.setdefault((layer.format, why), []).append(exact_pattern(layer.name))
    rules = tuple(
        Rule(pattern=tuple(names), format=fmt, why=why) for (fmt, why), names in patterns.items()
    )
    return base.model_copy(update={"name": name, "description": description, "rules": rules})


def exact_pattern(name: str) -> str:
    """Return a pattern that matches only this layer name."""
    return _SPECIAL.sub(lambda found: f"[{found[0]}]", name)
