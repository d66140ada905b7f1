"""Which ComfyUI loads the formats of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ..errors import PlanError, Remedy
from ..formats import FORMATS, get_format
from ..hardware.comfyui import FLOOR, Version, newest, parse_version, version_text
from ..text import shorten
from .architectures import Architecture
from .recipe import Recipe


def target_of(recipe: Recipe, architecture: Architecture) -> Version:
    """Return the oldest ComfyUI that must load a checkpoint.

    ComfyUI must know the model too, so an older one than that need not load the checkpoint.
    """
    return newest([recipe.oldest_comfyui, _known_since(architecture)])


def needed_comfyui(formats: Iterable[str], architecture: Architecture | None = None) -> str:
    """Return the first ComfyUI that loads these formats and this model, as text.

    Empty if every ComfyUI that the pack supports does.
    """
    needs: list[Version | None] = [
        FORMATS[name].needs_comfyui for name in set(formats) if name in FORMATS
    ]
    if architecture is not None:
        needs.append(_known_since(architecture))
    found = [need for need in needs if need is not None and need > FLOOR]
    return version_text(max(found)) if found else ""


def version_notes(formats: Iterable[str], architecture: Architecture | None) -> tuple[str, ...]:
    """Return a note on the ComfyUI that these formats and this model need, if not every one does.

    Args:
        formats: the format of each layer.
        architecture: the model, None if it is not in question.
    """
    counts = Counter(name for name in formats if needed_comfyui([name]))
    needed = needed_comfyui(counts, architecture)
    if not needed:
        return ()
    why = [f"{count} layers are {name}" for name, count in counts.items()]
    if architecture is not None and needed_comfyui((), architecture):
        why.append(f"the model is {architecture.title}")
    return (f"needs ComfyUI {needed} or newer: {', '.join(why)}",)


def require_loadable(
    recipe: Recipe, architecture: Architecture, formats: Mapping[str, str]
) -> None:
    """Refuse formats that the oldest ComfyUI in question does not load.

    Args:
        recipe: names the oldest ComfyUI.
        architecture: the model.
        formats: the format of each layer by its name.

    Raises:
        PlanError: the message names the layers, their format and the way out.
        FormatError: a format is unknown.
    """
    target = target_of(recipe, architecture)
    newer: dict[str, list[str]] = {}
    for layer, name in formats.items():
        if (get_format(name).needs_comfyui or target) > target:
            newer.setdefault(name, []).append(layer)
    if not newer:
        return
    needed = needed_comfyui(newer)
    which = "; ".join(f"{name} for {shorten(layers)}" for name, layers in newer.items())
    raise PlanError(
        f"ComfyUI {version_text(target)} must load this checkpoint, but only ComfyUI {needed} and "
        f"newer loads {which}. Set comfyui to {needed} (--comfyui {needed}) if those who use the "
        "checkpoint have it, or choose another format for these layers",
        remedy=Remedy(f"Write for ComfyUI {needed} and newer", "comfyui", needed),
    )


def _known_since(architecture: Architecture) -> Version | None:
    return parse_version(architecture.since) if architecture.since else None
