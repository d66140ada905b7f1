"""Report a sensitivity as text."""

from __future__ import annotations

import math

from ..sensitivity.artefact import CandidateErrors, Sensitivity
from ..text import text_table
from .messages import Message, messages_of


def describe_sensitivity(sensitivity: Sensitivity) -> str:
    """Return a sensitivity as text: unknown layers, then one line per layer, worst first."""
    first, *others = sensitivity.formats
    lines = [
        f"{len(sensitivity.layers)} layers, rounding {sensitivity.rounding}",
        f"weight, W4A16 and W4A4: relative errors in {first}, of the weight and of the layer's "
        "output with 16-bit and with quantized inputs",
    ]
    if others:
        lines.append(f"{', '.join(others)}: output error if the format runs natively")
    if sensitivity.has_latents:
        lines.append(f"latent: {_which_latent(sensitivity)}")
        lines += [f"~: {text}" for text in [estimated_text(sensitivity, first)] if text]
    lines += (message.text for message in sensitivity_messages(sensitivity))
    rows = []
    for name in sorted(sensitivity.layers, key=lambda name: _costliest(sensitivity, name)):
        layer, candidates = sensitivity.layers[name], sensitivity.candidates(name)
        errors = candidates.get(first)
        row = [name, "x".join(map(str, layer.shape))]
        row += [_error(errors, part) for part in ("weight", "w4a16", "w4a4")]
        row += [_error(candidates.get(other), "w4a4") for other in others]
        row += [_error(errors, "latent")] if sensitivity.has_latents else []
        rows.append(row)
    headings = ["layer", "shape", "weight", "W4A16", "W4A4", *others]
    headings += ["latent"] if sensitivity.has_latents else []
    return "\n".join([*lines, "", text_table(headings, rows)])


def sensitivity_messages(sensitivity: Sensitivity) -> tuple[Message, ...]:
    """Return one warning per format in which errors of layers are unknown."""
    unknown = {name: sensitivity.unknown(name) for name in sensitivity.formats}
    return messages_of(
        warnings=(
            f"unknown in {name}, so not known to be safe: {', '.join(layers)}"
            for name, layers in unknown.items()
            if layers
        )
    )


def estimated_text(sensitivity: Sensitivity, format_name: str) -> str:
    """Return how many shifts in a format were not measured; empty if all were."""
    found = [sensitivity.candidates(name).get(format_name) for name in sensitivity.layers]
    known = [errors for errors in found if errors and errors.latent is not None]
    estimated = sum(errors.is_estimated for errors in known)
    if not estimated:
        return ""
    return f"the shifts of {estimated} of {len(known)} layers are estimated from those of like ones"


def _which_latent(sensitivity: Sensitivity) -> str:
    if sensitivity.is_of_samplings:
        return "shift of the sampled latent if only this layer is quantized, in every step"
    sigmas = ", ".join(f"{sigma:.4g}" for sigma in _sigmas(sensitivity))
    return f"shift of the denoised latent if only this layer is quantized, at sigma {sigmas}"


def _sigmas(sensitivity: Sensitivity) -> list[float]:
    candidates = (c for la in sensitivity.layers.values() for c in la.candidates.values())
    return sorted({sigma for c in candidates for sigma in c.latent_by_sigma}, reverse=True)


def _costliest(sensitivity: Sensitivity, name: str) -> tuple[int, float]:
    """Return a sort key by the cost in the first format a layer can take: unknown, then worst."""
    candidates = sensitivity.candidates(name)
    rank, first = next((n, f) for n, f in enumerate(sensitivity.formats) if f in candidates)
    cost = sensitivity.cost(name, first)
    return rank, -math.inf if cost is None else -cost


def _error(errors: CandidateErrors | None, part: str) -> str:
    if errors is None:
        return "-"
    value = getattr(errors, part)
    if value is None:
        return "unknown"
    return f"{'~' if part == 'latent' and errors.is_estimated else ''}{value:.3%}"
