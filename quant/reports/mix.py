"""Report recipes and mixes as text."""

from __future__ import annotations

from collections.abc import Sequence

from ..derive import Mix, MixPoint
from ..planning import Recipe
from ..text import format_bytes, text_table
from .messages import Message, messages_of


def describe_recipe(recipe: Recipe) -> str:
    """Return a recipe as text: its settings, then its rules in their order."""
    policy = recipe.input_scale
    numbers = f"rounding {recipe.rounding}, input_scale {policy.text}"
    if policy.takes_headroom:
        numbers += f", headroom {policy.headroom:g}"
    return "\n".join(
        [
            f"recipe  {recipe.name}",
            *([f"about   {recipe.description}"] if recipe.description else []),
            f"for     {', '.join(recipe.architectures) or 'any model'}",
            f"numbers {numbers}",
            "",
            *(f"rule {number}: {rule.describe()}" for number, rule in enumerate(recipe.rules, 1)),
            "then the rules of the preset for the model"
            if recipe.auto
            else f"default: {recipe.default}",
        ]
    )


def describe_mix(mix: Mix) -> str:
    """Return a mix as text: size and error of mix and preset, and a table of the frontier."""
    what = what_is_predicted(mix)
    lines = [
        f"model   {mix.plan.architecture}",
        f"budget  {', '.join(filter(None, [str(mix.budget), rest_of_budget(mix)]))}",
        f"mixed   {', '.join(f'{count} {name}' for name, count in mix.point.counts.items())}",
        f"size    {format_bytes(mix.plan.bytes_before)} -> {format_bytes(mix.point.bytes)}; "
        f"preset {mix.preset_name}: {format_bytes(mix.preset.bytes)}",
        f"error   {mix.point.error:.2%} predicted, {what}; "
        f"preset {mix.preset_name}: {mix.preset.error:.2%}",
        *_sampled(mix),
        f"speed   {products_of(mix.point)}; preset {mix.preset_name}: {mix.preset.four_bit:.1%}",
        *map(str, mix_messages(mix)),
    ]
    marked = [(point, "this mix" if point == mix.point else "") for point in mix.frontier]
    if mix.point not in mix.frontier:
        marked.append((mix.point, "this mix"))
    marked = sorted([*marked, (mix.preset, "preset")], key=lambda row: row[0].bytes)
    formats = list(dict.fromkeys(name for point, _ in marked for name in point.counts))
    rows = (_frontier_row(point, formats, mark) for point, mark in marked)
    table = text_table(("size", "bits", "error", *formats, ""), rows, left=("",))
    return "\n".join([*lines, "", table])


def _sampled(mix: Mix) -> list[str]:
    found = mix.sampled
    if found is None:
        return []
    preset = "" if found.preset is None else f"; preset {mix.preset_name}: {found.preset:.2%}"
    return [f"sampled {found.mix:.2%} whole, the least of {found.mixes} mixes{preset}"]


def mix_messages(mix: Mix) -> tuple[Message, ...]:
    """Return how far to trust a mix, and the warnings of its plan."""
    points = (("mix", mix.point), ("preset", mix.preset))
    return (
        *_doubts(mix),
        *messages_of(
            (
                f"{point.uncounted} layers of the {name} have unknown errors, which do not count"
                for name, point in points
                if point.uncounted
            ),
            mix.plan.warnings,
        ),
    )


def rest_of_budget(mix: Mix) -> str:
    """Return how much of the budget is left; empty for a limit of each layer, which has no rest."""
    if mix.budget.layer_error is not None:
        return ""
    return f"{max(0.0, mix.below_budget):.2%} of it left"


def products_of(point: MixPoint) -> str:
    """Return how many of the mixed weights the fastest products of Blackwell multiply."""
    return f"{point.four_bit:.1%} of the mixed weights in 4-bit products"


def what_is_predicted(mix: Mix) -> str:
    """Return in words what the predicted error is an error of."""
    if mix.is_of_samplings:
        return "of the sampled latent in short samplings"
    return "of the model's output" if mix.has_latents else "of all layers' outputs together"


def _doubts(mix: Mix) -> tuple[Message, ...]:
    """Return warnings if the prediction is not reliable, or if the mix brings no gain."""
    if not mix.has_latents:
        warning = (
            "the sensitivity was not probed. A mix made from the errors of single layers "
            "may be worse than its preset; probe each input in short samplings, or compare samples"
        )
        return messages_of(warnings=[warning])
    if not mix.is_of_samplings:
        warning = (
            "single model calls were probed. They underrate errors that add up from step "
            "to step, such as those of text layers, so the mix may not be better than its preset; "
            "probe short samplings, or compare samples"
        )
        return messages_of(warnings=[warning])
    sampled = mix.sampled
    if sampled is not None and sampled.mix == sampled.preset:
        note = f"of {sampled.mixes} mixes that were sampled whole, none is better than the preset"
        return messages_of([note])
    if mix.point.error >= mix.preset.error and mix.point.bytes <= mix.preset.bytes:
        return messages_of(
            [f"no better than {mix.preset_name} at this size, by the probed sensitivity"]
        )
    return ()


def _frontier_row(point: MixPoint, formats: Sequence[str], mark: str) -> list[str]:
    counts = [str(point.counts.get(name, "-")) for name in formats]
    return [format_bytes(point.bytes), f"{point.bits:.2f}", f"{point.error:.2%}", *counts, mark]
