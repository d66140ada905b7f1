"""Translate layer names of other tools, and explain names that a model does not have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

_NAMED = 3
_NEAREST = 3
# torch.compile wraps modules under this name.
_COMPILED = "_orig_mod."
_EXPERT = re.compile(r"(^|\.)experts\.\d+\.")
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "net.")
_SUFFIXES = (".input_scale", ".weight")


def module_name(name: str) -> str:
    """Return a module's name without the wrappers of torch.compile."""
    return name.replace(_COMPILED, "")


def is_expert(name: str) -> bool:
    """Whether a layer is part of one expert of a mixture, which may get no tokens."""
    return _EXPERT.search(name) is not None


def name_in_model(name: str, known: Collection[str]) -> str:
    """Return the model's own name of a layer; ``name`` itself if the model has no such layer.

    Removes prefixes of full checkpoints and compiled modules, and suffixes of tensor names.
    """
    plain = module_name(name)
    for suffix in _SUFFIXES:
        plain = plain.removesuffix(suffix)
    if plain in known:
        return plain
    for prefix in _PREFIXES:
        if plain.startswith(prefix) and plain.removeprefix(prefix) in known:
            return plain.removeprefix(prefix)
    return name


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names that are similar to this one, the most similar first."""
    return get_close_matches(name, list(known), n=_NEAREST)


def describe_unknown(unknown: Sequence[str], known: Iterable[str]) -> str:
    """Return text that lists the unknown names and the nearest known names.

    Args:
        unknown: names that the model lacks, at least one.
        known: the layer names of the model.
    """
    known = list(known)
    named = ", ".join(unknown[:_NAMED])
    if len(unknown) > _NAMED:
        named += f" and {len(unknown) - _NAMED} more"
    near = dict.fromkeys(n for name in unknown[:_NAMED] for n in nearest_names(name, known))
    return f"{named}; the nearest names are {', '.join(near)}" if near else named
