"""Measure the output error of a quantized layer on sampled inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from ..formats import WeightFormat


@dataclass(frozen=True, eq=False)
class OutputError:
    """Relative errors of a layer's output.

    ``w4a16``: with 16-bit activations. ``w4a4``: with activations rounded as in the format's native
    product; equal to ``w4a16`` for formats that do not round them. ``by_row``: squared errors of
    the rows for ``w4a4``, float64 [R].
    """

    w4a16: float
    w4a4: float
    by_row: torch.Tensor

    def beats(self, other: OutputError) -> bool:
        """Return whether this squared error is smaller by more than two standard errors."""
        gain = other.by_row - self.by_row
        if len(gain) < 2:
            return False
        return float(gain.mean()) > 2.0 * float(gain.std()) / len(gain) ** 0.5


class OutputTrial:
    """The exact outputs of one layer for sampled inputs, to compare candidates with.

    The error is ``||X W^T - Xq Wq^T|| / ||X W^T||`` over input rows ``X`` ``[R, in]``. ``Xq`` is X,
    or X rounded as in the format's native product.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        rows: torch.Tensor,
        fmt: WeightFormat,
        input_scale: float | None,
    ) -> None:
        """Compute the exact outputs of ``weight`` ``[out, in]`` for ``rows`` ``[R, in]``."""
        usable = rows[torch.isfinite(rows.float()).all(dim=1)].to(weight.device)
        #: The rows that are finite, float32 ``[R, in]``.
        self.inputs = usable.float()
        self._exact = self.inputs @ weight.float().T
        self._norm = _norm(self._exact)
        self._fmt = fmt
        self._rows = usable
        self._rounded = self._round(input_scale)

    @property
    def is_possible(self) -> bool:
        """Whether errors can be measured: there are rows, and not all outputs are zero."""
        return 0.0 < self._norm < float("inf")

    @property
    def output_norm(self) -> float:
        """Root mean square over the rows of the norm of the exact output."""
        return self._norm / max(1, len(self.inputs)) ** 0.5

    @cached_property
    def _rounded_by_runtime(self) -> torch.Tensor:
        return self._round(None)

    def _round(self, input_scale: float | None) -> torch.Tensor:
        if not self._fmt.rounds_activations or not len(self._rows):
            return self.inputs
        return self._fmt.emulate_activations(self._rows, input_scale)

    def measure(
        self, decoded: torch.Tensor, bias_shift: torch.Tensor | None = None
    ) -> OutputError | None:
        """Return the errors of a decoded weight ``[out, in]``; None if they cannot be measured.

        ``bias_shift`` ``[out]`` is added to the bias.
        """
        if not self.is_possible:
            return None
        shift = 0.0 if bias_shift is None else bias_shift
        weight_only = (self.inputs @ decoded.T).sub_(self._exact).add_(shift)
        both = (self._rounded @ decoded.T).sub_(self._exact).add_(shift)
        squares = [values.square_().sum(1, dtype=torch.float64) for values in (weight_only, both)]
        of_weight, by_row = torch.stack(squares).cpu()  # the host waits for the device once
        w4a16, w4a4 = (float(s.sum()) ** 0.5 / self._norm for s in (of_weight, by_row))
        return OutputError(w4a16, w4a4, by_row)

    def with_runtime_scale(
        self, decoded: torch.Tensor, bias_shift: torch.Tensor | None = None
    ) -> float | None:
        """Return the W4A4 error with the activation scale that the runtime would choose.

        None if it cannot be measured, or if the format takes no static scale.
        """
        if not self.is_possible or self._fmt.activation_divisor is None:
            return None
        shift = 0.0 if bias_shift is None else bias_shift
        return (
            _norm((self._rounded_by_runtime @ decoded.T).sub_(self._exact).add_(shift)) / self._norm
        )


def _norm(values: torch.Tensor) -> float:
    """Return the Frobenius norm, summed by rows in float64."""
    return float(values.square().sum(1, dtype=torch.float64).cpu().sum()) ** 0.5
