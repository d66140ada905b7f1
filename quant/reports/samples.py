"""Report the difference between two batches of samples as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..difference import Difference
from ..text import text_table


def describe_samples(
    title: str,
    items: Sequence[Difference],
    *,
    peak: float | None = None,
    ssim: Sequence[float] = (),
    notes: Sequence[str] = (),
) -> str:
    """Return the figures of a compared batch as text: for the whole batch, then per item.

    Args:
        title: what was compared.
        items: one difference per item.
        peak: the largest possible value, for PSNR; None if there is none.
        ssim: the structural similarity of each item, if it was measured.
        notes: further notes for the user.
    """
    whole = sum(items, Difference())
    columns = [
        ("relative error", "error", "{:.3%}", [d.relative_error for d in (whole, *items)]),
        ("mean squared error", "mse", "{:.4g}", [d.mean_squared_error for d in (whole, *items)]),
        ("largest difference", "largest", "{:.4g}", [d.largest for d in (whole, *items)]),
    ]
    if peak is not None:
        columns.append(("PSNR", "PSNR", "{:.2f} dB", [d.psnr(peak) for d in (whole, *items)]))
    if ssim:
        columns.append(("SSIM", "SSIM", "{:.4f}", [sum(ssim) / len(ssim), *ssim]))
    lines = [title, *(f"{name:<18} {form.format(v[0])}" for name, _, form, v in columns)]
    if whole.is_finite and math.isinf(whole.relative_error):
        lines.append("note: the reference is zero, so there is no relative error")
    if not whole.is_finite:
        lines.append("warning: the samples have NaN or infinite values")
    lines += [f"note: {note}" for note in notes]
    if len(items) == 1:
        return "\n".join(lines)
    rows = (
        [str(i), *(form.format(v[i + 1]) for _, _, form, v in columns)] for i in range(len(items))
    )
    table = text_table(["item", *(short for _, short, *_ in columns)], rows, left=())
    return "\n".join([*lines, "", table])
