"""The diffusion model of a source whose names have a prefix, or that holds other things too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..errors import SourceError
from ..text import shorten
from .base import TensorSource
from .remaining import RemainingTensors
from .unwrapped import UnwrappedSource, has_wrappers
from .view import SourceView

_CHECKPOINT = "model.diffusion_model."
#: The prefixes that ComfyUI removes itself (``unet_prefix_from_state_dict``), longest first.
COMFYUI_PREFIXES = (_CHECKPOINT, "model.model.", "net.", "model.")
# What tools and training scripts call the diffusion model. ComfyUI loads no file of these names.
_OTHERS = ("diffusion_model.", "transformer.", "unet.", "dit.", "module.")
# Running averages of the weights. ComfyUI takes the weights themselves.
_AVERAGES = ("model_ema.", "ema_model.", "ema.", "module_ema.", "averaged_model.", "ema_unet.")
# Names of language models and of Stable Audio, in which ComfyUI expects the prefix.
_NAMED_SO = (
    "model.embed_tokens.", "model.language_model.", "model.layers.0.self_attn.",
    "transformer.resblocks.", "transformer.h.", "transformer.wte.", "transformer.word_embeddings.",
    "transformer.encoder.layers.", "transformer.embedding.word_embeddings.",
    "transformer.project_in.", "transformer.rotary_pos_emb.",
)  # fmt: skip
# HiDream-O1 is a language model with layers of its own, and ComfyUI wants it without the prefix.
_NAMED_SO_BUT_DIFFUSION = "model.t_embedder1."
_DEEPEST = 3
# ComfyUI takes no prefix of so few tensors.
_COMFYUI_IGNORES = 5


class PrefixedSource(SourceView):
    """A source without the prefix of its names. What is not of the model is its ``rest``.

    Tensors without the prefix belong to the model as well if their names begin like others of it.
    With ``strict``, they do not. ``twice`` names tensors that the file holds under two names.
    """

    def __init__(self, source: TensorSource, prefix: str, *, strict: bool = False):
        notes = [f"layer names are used without their prefix {prefix!r}"] if prefix else []
        super().__init__(source, *notes)
        self.prefix = prefix
        if source.linear_layers is not None:
            self.linear_layers = frozenset(n.removeprefix(prefix) for n in source.linear_layers)
        self._original = _named_with(source.tensors, prefix)
        adopted, twice = ({}, []) if strict else _belonging(source.tensors, self._original, prefix)
        self.twice = tuple(twice)
        moved = set(adopted.values()) | set(twice)  # of a model without prefix
        self._original = {n: o for n, o in self._original.items() if o not in moved} | adopted
        # in the order of the file
        names = {original: name for name, original in self._original.items()}
        self._tensors = {
            names[original]: replace(info, name=names[original])
            for original, info in source.tensors.items()
            if original in names
        }
        if adopted:
            self.notes += (
                f"{len(adopted)} tensors lack the prefix of the others, but belong to the model "
                f"({shorten(adopted.values(), 3)})",
            )
        self.comfyui_reads &= prefix in ("", *COMFYUI_PREFIXES) and not adopted
        self._set_rest(source, names)

    def _set_rest(self, source: TensorSource, used: Iterable[str]) -> None:
        rest = RemainingTensors(source, set(used))
        if not rest.tensors:
            return
        self.rest = rest
        parts = sorted({name.split(".")[0] for name in rest.tensors})
        self.notes += (
            f"{len(rest.tensors)} tensors are not part of the diffusion model "
            f"({', '.join(parts[:6])})",
        )
        if any(_is_average(name) for name in rest.tensors):
            self.notes += (
                "the file also holds running averages of the weights (EMA), which ComfyUI does not "
                "load; the weights themselves are used",
            )

    def _origin(self, name: str) -> tuple[TensorSource, str]:
        return self._source, self._original[name]


def without_prefix(source: TensorSource) -> TensorSource:
    """Return the diffusion model of a source by the names that ComfyUI uses.

    Removes prefixes and the segments of wrappers, and sets averages of the weights apart. The
    source itself, if there is nothing to remove.
    """
    if has_wrappers(source.tensors):
        source = UnwrappedSource(source)
    prefix = find_prefix(source.tensors)
    if prefix or _is_mixed(source.tensors):
        return PrefixedSource(source, prefix)
    return source


def _is_mixed(names: Iterable[str]) -> bool:
    """Whether there are averages beside names without prefix, or a few names with a prefix."""
    listed = list(names)
    averages = any(_is_average(name) for name in listed)
    return averages or any(_belonging(listed, _named_with(listed, ""), ""))


def require_one_model(source: TensorSource) -> None:
    """Refuse a source that holds a tensor under two names, of which one would be lost.

    Raises:
        SourceError: the message names one.
    """
    twice = source.twice if isinstance(source, PrefixedSource) else ()
    if twice:
        raise SourceError(
            f"{source.description} holds {len(twice)} tensors both with and without a prefix, e.g. "
            f"{twice[0]}, so it may hold two models; start from a file with one"
        )


def find_prefix(names: Iterable[str]) -> str:
    """Return the prefix of the diffusion model's names, or an empty string.

    ``model.diffusion_model.`` marks the diffusion model in a file that also holds a text encoder or
    a VAE. The shorter prefixes count only if most names have them, and not in a language model.
    """
    inside = [name for name in names if not _is_average(name)] or list(names)
    found = ""
    for _ in range(_DEEPEST):
        step = _outermost(inside)
        found += step
        if not step or step in COMFYUI_PREFIXES[:-1]:
            break
        inside = [name[len(step) :] for name in inside if name.startswith(step)]
    return found


def loaded_names(names: Iterable[str]) -> set[str]:
    """Return the names under which ComfyUI's loader of diffusion models sees these tensors.

    It removes the most frequent of its prefixes, and leaves out all tensors without it
    (``unet_prefix_from_state_dict`` and ``load_diffusion_model_state_dict``).
    """
    listed = list(names)
    firsts = {_first(name) for name in listed}
    counts = {
        prefix: sum(name.startswith(prefix) for name in listed) for prefix in COMFYUI_PREFIXES[:-1]
    }
    prefix = max(counts, key=lambda found: counts[found])
    if {"detector", "tracker"} <= firsts:  # SAM3
        prefix = ""
    elif counts[prefix] <= _COMFYUI_IGNORES:
        prefix = COMFYUI_PREFIXES[-1]
    inside = {name[len(prefix) :] for name in listed if name.startswith(prefix)}
    return inside or set(listed)


def _outermost(names: list[str]) -> str:
    within = [name.removeprefix(_CHECKPOINT) for name in names if name.startswith(_CHECKPOINT)]
    if within:
        first = {_first(name) for name in within}
        beside = sum(_first(n) in first for n in names if not n.startswith(_CHECKPOINT))
        return _CHECKPOINT if len(within) >= beside else ""
    if any(name.startswith(_NAMED_SO) for name in names) and not any(
        name.startswith(_NAMED_SO_BUT_DIFFUSION) for name in names
    ):
        return ""
    for prefix in (*COMFYUI_PREFIXES[1:], *_OTHERS, *_AVERAGES):
        if 2 * sum(name.startswith(prefix) for name in names) > len(names):
            return prefix
    return ""


def _named_with(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Return the full names that have a prefix, by the names without it."""
    of_average = _is_average(prefix)
    return {
        name[len(prefix) :]: name
        for name in names
        if name.startswith(prefix) and (of_average or not _is_average(name))
    }


def _belonging(
    names: Iterable[str], model: dict[str, str], prefix: str
) -> tuple[dict[str, str], list[str]]:
    """Find tensors of the model that lack its prefix, or have another one.

    Returns:
        the full names by the names in the model, and the full names of tensors that would get the
        name of another tensor.
    """
    listed = list(names)
    if not prefix and any(name.startswith(_NAMED_SO) for name in listed):
        return {}, []
    known = Counter(_first(name) for name in model if prefix or not _has_any_prefix(name))
    found: dict[str, str] = {}
    twice = []
    for name in listed:
        is_own = name.startswith(prefix) if prefix else not _has_any_prefix(name)
        if is_own or _is_average(name):
            continue
        for short in _without_any_prefix(name):
            if (prefix or short != name) and (short in model or short in found):
                twice.append(name)
                break
            if known[_first(short)]:
                found[short] = name
                break
    return found, twice


def _without_any_prefix(name: str) -> Iterator[str]:
    for other in ("", *COMFYUI_PREFIXES, *_OTHERS):
        if name.startswith(other):
            yield name[len(other) :]


def _has_any_prefix(name: str) -> bool:
    return name.startswith((*COMFYUI_PREFIXES, *_OTHERS))


def _is_average(name: str) -> bool:
    return name.startswith(_AVERAGES)


def _first(name: str) -> str:
    return name.partition(".")[0]
