"""Measure the output error of a quantized layer on sampled inputs, in bands of output channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass

import torch

from ..formats import WeightFormat
from ..formats.base import device_slices
from ..formats.parallel import share_chunks

# A band is a product of its own, so a few large ones are faster than many small ones.
_SAMPLED_BANDS = 16

#: Returns some rows of a weight ``[out, in]`` as float32.
Decode = Callable[[slice], torch.Tensor]


def decode_with(
    fmt: WeightFormat, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...]
) -> Decode:
    """Return what decodes rows of the stored tensors of a weight of this shape."""
    return lambda rows: fmt.decode(tensors, shape, rows)


@dataclass(frozen=True, eq=False)
class OutputError:
    """Relative errors of a layer's output.

    ``w4a16``: with 16-bit activations. ``w4a4``: with activations rounded as in the format's native
    product; equal to ``w4a16`` for formats that do not round them. ``by_row``: squared errors of
    the rows for ``w4a4``, float64 [R]. ``runtime_scale``: like ``w4a4``, with the activation scale
    that the runtime would choose; None if the format takes no static scale.
    """

    w4a16: float
    w4a4: float
    by_row: torch.Tensor
    runtime_scale: float | None = None

    def beats(self, other: OutputError, rows: slice = slice(None)) -> bool:
        """Return whether this squared error is smaller by more than two standard errors.

        ``rows``: judge on these rows alone.
        """
        gain = (other.by_row - self.by_row)[rows]
        if len(gain) < 2:
            return False
        return float(gain.mean()) > 2.0 * float(gain.std()) / len(gain) ** 0.5


class OutputTrial:
    """The exact outputs of one layer for sampled inputs, to compare candidates with.

    The error is ``||X W^T - Xq Wq^T|| / ||X W^T||`` over input rows ``X`` ``[R, in]``. ``Xq`` is X,
    or X rounded as in the format's native product. No float32 copy of a whole weight is made:
    it would take more time than the products.

    With ``channels``, about so many output channels are measured, in bands spread evenly over the
    weight. That is enough for a report, and on a large layer the products of all channels would
    take longer than the encoding.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        rows: torch.Tensor,
        fmt: WeightFormat,
        input_scale: float | None,
        *,
        channels: int | None = None,
    ) -> None:
        """Compute the exact outputs of ``weight`` ``[out, in]`` for ``rows`` ``[R, in]``."""
        usable = rows[torch.isfinite(rows.float()).all(dim=1)].to(weight.device)
        #: The rows that are finite, float32 ``[R, in]``.
        self.inputs = usable.float()
        self._rows, self._format = usable, fmt
        self._bands = device_slices(weight)
        if channels is not None and channels < weight.shape[0]:
            self._bands = spread_bands(weight.shape[0], channels, _SAMPLED_BANDS)
        self._exact = self._exact_outputs(weight)
        self._norm = _norm(self._exact[band.start] for band in self._bands if self._exact)
        measured = sum(band.stop - band.start for band in self._bands)
        self._channels_per_measured = weight.shape[0] / max(1, measured)
        self._takes_scale = fmt.activation_divisor is not None
        self._inputs_by_scale = self._all_inputs(usable, input_scale)

    @property
    def is_possible(self) -> bool:
        """Whether errors can be measured: there are rows, and not all outputs are zero."""
        return 0.0 < self._norm < float("inf")

    @property
    def output_norm(self) -> float:
        """Root mean square over the rows of the norm of the exact output."""
        return self._norm * (self._channels_per_measured / max(1, len(self.inputs))) ** 0.5

    def _exact_outputs(self, weight: torch.Tensor) -> dict[int, torch.Tensor]:
        """Return the outputs of the bands by their first channel, float32 ``[band, R]``."""
        outputs: dict[int, torch.Tensor] = {}

        def loop(bands: Iterable[slice]) -> None:
            for band in bands:
                outputs[band.start] = weight[band].float() @ self.inputs.T

        if len(self.inputs):
            share_chunks(loop, self._bands, weight.device)
        return outputs

    def smoothed(self, factors: torch.Tensor, input_scale: float | None) -> OutputTrial:
        """Return a trial whose inputs are multiplied by factors, float32 ``[in]``, then rounded.

        The weights to measure still multiply the input without the factors. ``input_scale`` is the
        static scale of the product.
        """
        factors = factors.to(self.inputs.device)
        other = copy(self)
        inputs = self._all_inputs(self._rows * factors.to(self._rows.dtype), input_scale)
        inputs[1:].div_(factors)
        other._inputs_by_scale = inputs
        return other

    def rounding_noise(self, rows: slice) -> torch.Tensor:
        """Return the mean square error that rounding makes in each input channel, float32 [in].

        In units of the input without factors.
        """
        exact, *rounded = self._inputs_by_scale
        return (rounded[0] - exact)[rows].square().mean(0)

    def _all_inputs(self, rows: torch.Tensor, input_scale: float | None) -> torch.Tensor:
        """Return the inputs of the product, float32 ``[1 to 3, R, in]``.

        The first are exact, the second are rounded with the static scale, the third with the
        runtime's. Those that equal the ones before them are left out.
        """
        fmt = self._format
        if not self.is_possible or not fmt.rounds_activations:
            return self.inputs.unsqueeze(0)
        scales = [input_scale]
        if self._takes_scale and input_scale is not None:
            scales.append(None)
        return torch.stack([self.inputs, *(fmt.emulate_activations(rows, s) for s in scales)])

    def measure(self, decode: Decode, bias_shift: torch.Tensor | None = None) -> OutputError | None:
        """Return the errors of a weight ``[out, in]``; None if they cannot be measured.

        Args:
            decode: decodes some rows of the weight. Several threads call it.
            bias_shift: ``[out]``, added to the bias.
        """
        if not self.is_possible:
            return None
        by_row = self._squared_errors(decode, bias_shift).cpu()  # the host waits here, once
        of_weight, static, runtime = (by_row[min(n, len(by_row) - 1)] for n in range(3))
        w4a16, w4a4, by_runtime = (
            float(squares.sum()) ** 0.5 / self._norm for squares in (of_weight, static, runtime)
        )
        return OutputError(w4a16, w4a4, static, by_runtime if self._takes_scale else None)

    def _squared_errors(self, decode: Decode, bias_shift: torch.Tensor | None) -> torch.Tensor:
        """Return the squared errors of every input row, float64 ``[1 to 3, R]``."""
        kinds, rows, width = self._inputs_by_scale.shape
        inputs = self._inputs_by_scale.view(-1, width)
        squares: dict[int, torch.Tensor] = {}

        def loop(bands: Iterable[slice]) -> None:
            for band in bands:
                errors = (decode(band) @ inputs.T).view(-1, kinds, rows)
                errors.sub_(self._exact[band.start].unsqueeze(1))
                if bias_shift is not None:
                    errors.add_(bias_shift[band].view(-1, 1, 1))
                squares[band.start] = errors.square_().sum(0, dtype=torch.float64)

        share_chunks(loop, self._bands, inputs.device)
        return torch.stack([squares[band.start] for band in self._bands]).sum(0)


def spread_bands(rows: int, wanted: int, bands: int) -> list[slice]:
    """Return slices of ``wanted`` rows in all, spread evenly over at least as many rows."""
    size = wanted // bands
    starts = (number * (rows - size) // (bands - 1) for number in range(bands))
    return [slice(start, start + size) for start in starts]


def _norm(bands: Iterable[torch.Tensor]) -> float:
    """Return the Frobenius norm, summed by rows in float64. The host waits for the device once."""
    squares = [band.square().sum(dtype=torch.float64) for band in bands]
    return float(torch.stack(squares).sum()) ** 0.5 if squares else 0.0
