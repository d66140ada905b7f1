"""Layer names as other tools write them, and those that a model does not have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

_NAMED = 3
_NEAREST = 3
# torch.compile wraps modules under this name.
_COMPILED = "_orig_mod."
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "net.")
_SUFFIXES = (".input_scale", ".weight")


def module_name(name: str) -> str:
    """Return a module's name without the wrappers that torch.compile puts around modules."""
    return name.replace(_COMPILED, "")


def name_in_model(name: str, known: Collection[str]) -> str:
    """Return a layer's name as the model has it, the name itself if it has no such layer.

    Removed are the prefixes of full checkpoints and of compiled modules, and the suffixes of
    tensor names.
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
    """Return up to three known names like this one, the likest first."""
    return get_close_matches(name, list(known), n=_NEAREST)


def describe_unknown(unknown: Sequence[str], known: Iterable[str]) -> str:
    """Return names that a model lacks, in words, and the nearest that it has.

    Args:
        unknown: at least one name.
        known: the model's own.
    """
    known = list(known)
    named = ", ".join(unknown[:_NAMED])
    if len(unknown) > _NAMED:
        named += f" and {len(unknown) - _NAMED} more"
    near = dict.fromkeys(n for name in unknown[:_NAMED] for n in nearest_names(name, known))
    return f"{named}; the nearest names are {', '.join(near)}" if near else named
