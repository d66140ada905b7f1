"""Tables of sixteen levels, and the nearest level of a value.

A value belongs to the level whose float32 distance to it is smaller, and to the lower one of two
equally distant levels. So the index of the nearest level grows with the value, and fifteen
thresholds decide it: the index is the number of thresholds below the value. The thresholds are
computed once, exactly. The range of values is cut into cells with at most one threshold each, so
that a table tells the index after a single comparison.
"""

from __future__ import annotations

import torch

#: Entries of a codebook: as many as a 4-bit code can name.
LEVELS = 16
# The levels of least squared error (Lloyd-Max) for Gaussian groups of sixteen over their largest
# magnitude; comfy-kitchen's table for weights that are Gaussian once they are rotated.
_GAUSSIAN = (
    -0.980602, -0.794529, -0.638165, -0.500986, -0.377321, -0.263187, -0.155210, -0.050720,
    0.052541, 0.156985, 0.265284, 0.379533, 0.502636, 0.638953, 0.794876, 0.980671,
)  # fmt: skip
# Values with a larger excess kurtosis get a table of their own.
_GAUSSIAN_KURTOSIS = -0.1
_KURTOSIS_VALUES, _FITTED_VALUES = 1 << 19, 300_000
_FITTING_STEPS = 25


def codebook_for(normalized: torch.Tensor) -> torch.Tensor:
    """Return the levels for values between -1 and 1, float32 [16] on the CPU, in increasing order.

    It is the fixed table for Gaussian weights, or a table fitted to the values if their tails are
    heavier. The choice and the table are comfy-kitchen's, bit for bit on the CPU, except that a
    table is kept in order where values repeat.
    """
    values = normalized.reshape(-1)
    sample = _sampled(values, _KURTOSIS_VALUES)
    centred = (sample - sample.mean()) / (sample.std() + 1e-9)
    kurtosis = float(centred.pow(4).mean() - 3.0)
    if not kurtosis > _GAUSSIAN_KURTOSIS:
        return gaussian_codebook()
    # On the CPU, because a GPU adds up in another order and would wait in each of the steps.
    return _fitted(_sampled(values, _FITTED_VALUES).cpu())


def gaussian_codebook() -> torch.Tensor:
    """Return the fixed table for Gaussian weights, float32 [16]."""
    return torch.tensor(_GAUSSIAN, dtype=torch.float32)


def thresholds(levels: torch.Tensor) -> torch.Tensor:
    """Return the thresholds between neighbouring levels ``[..., L]``, float32 ``[..., L - 1]``.

    A threshold is the largest float32 that belongs to the lower level. Between equal levels it is
    the level itself, so that values above it belong to the last of them.
    """
    lower, upper = levels[..., :-1].contiguous(), levels[..., 1:].contiguous()
    below, above = _ordered(lower), _ordered(upper)
    while bool((above - below > 1).any()):  # at most 32 halvings of the range of floats
        middle = (below + above).div(2, rounding_mode="floor")
        value = _float(middle)
        is_upper = (value - upper).abs() < (value - lower).abs()
        above = torch.where(is_upper, middle, above)
        below = torch.where(is_upper, below, middle)
    return torch.where(lower == upper, lower, _float(below))


class NearestLevel:
    """Finds the nearest level of values, for one table of levels or for several.

    Args:
        levels: float32 ``[T, 16]``, each table in increasing order.
        largest: no level exceeds this magnitude.
        cells: number of cells from zero to ``largest``.
    """

    def __init__(self, levels: torch.Tensor, largest: float, cells: int) -> None:
        self._per_unit, self._half = cells / largest, cells + 1
        self._bounds = thresholds(levels)
        self._cells = 2 * self._half + 1
        cell = self._cell(self._bounds)
        ends = torch.arange(self._cells, dtype=torch.int32, device=levels.device)
        ends = ends.expand(len(levels), -1).contiguous()
        first = torch.searchsorted(cell, ends, out_int32=True)  # thresholds in cells before
        behind = torch.searchsorted(cell, ends, right=True, out_int32=True)
        index = first.clamp(max=LEVELS - 2).long()
        bound = self._bounds.gather(1, index).masked_fill_(behind == first, torch.inf)
        last = self._bounds.gather(1, (behind - 1).clamp(min=0).long())
        self._is_exact = bool(((behind == first) | (bound == last)).all())
        self._first, self._bound = first.view(-1), bound.view(-1)
        self._count = (behind - first).view(-1)
        self._repeats = bool((self._count > 1).any())

    def move_to(self, device: torch.device) -> None:
        """Move the tables to a device."""
        self._bounds, self._first = self._bounds.to(device), self._first.to(device)
        self._bound, self._count = self._bound.to(device), self._count.to(device)

    def __call__(self, values: torch.Tensor, table: torch.Tensor | None = None) -> torch.Tensor:
        """Return the index of the level nearest to each value, int32 in the shape of the values.

        Args:
            values: float32 ``[..., n]``.
            table: the number of the table for each row of values, int32 ``[...]``; None: the first.
        """
        if not self._is_exact:  # two thresholds are closer than a cell
            return self._searched(values, table)
        cell = self._cell(values)
        if table is not None:
            cell += (table * self._cells).unsqueeze(-1)
        cell = cell.view(-1)
        beyond = (values.reshape(-1) > self._bound.index_select(0, cell)).int()
        if self._repeats:
            beyond *= self._count.index_select(0, cell)
        return beyond.add_(self._first.index_select(0, cell)).view(values.shape)

    def _cell(self, values: torch.Tensor) -> torch.Tensor:
        """Return the cell of values, int32; a function that grows with the value."""
        cell = (values * self._per_unit).round_().clamp_(-self._half, self._half)
        return cell.to(torch.int32).add_(self._half)

    def _searched(self, values: torch.Tensor, table: torch.Tensor | None) -> torch.Tensor:
        if table is None:
            return torch.bucketize(values, self._bounds[0], out_int32=True)
        bounds = self._bounds[table.reshape(-1)]
        found = torch.searchsorted(bounds, values.reshape(len(bounds), -1), out_int32=True)
        return found.view(values.shape)


def _ordered(values: torch.Tensor) -> torch.Tensor:
    """Return integers int64 in the order of the float32 values; -0 and 0 are the same."""
    bits = values.view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _float(ordered: torch.Tensor) -> torch.Tensor:
    bits = torch.where(ordered < 0, -ordered - 2**31, ordered)
    return bits.to(torch.int32).view(torch.float32)


def _sampled(values: torch.Tensor, count: int) -> torch.Tensor:
    """Return some of many values. Their indices are drawn on the CPU, so any GPU gets the same."""
    if len(values) <= count:
        return values
    generator = torch.Generator().manual_seed(0)
    return values[torch.randint(0, len(values), (count,), generator=generator).to(values.device)]


def _fitted(values: torch.Tensor) -> torch.Tensor:
    """Return the levels of least squared error for these values, by Lloyd's algorithm."""
    table = torch.quantile(values, torch.linspace(0, 1, LEVELS))
    for _ in range(_FITTING_STEPS):
        nearest = (values.unsqueeze(-1) - table).abs_().argmin(-1)
        means = [values[nearest == level].mean() for level in range(LEVELS)]
        found = torch.stack(means)
        table = torch.where(found.isnan(), table, found)  # a level without values stays
        table = table.sort().values  # values that repeat all belong to the first of equal levels
    return table
