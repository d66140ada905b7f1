"""Second moments of a layer's input, which error feedback needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..formats.rotation import rotate

#: Rows of a matrix [K, K] that a step works on at a time, so that its copies stay small.
BAND = 512


@dataclass(frozen=True, eq=False)
class SecondMoments:
    """Means over observed tokens. ``x`` is the input, ``xq`` is the input rounded to NVFP4.

    All tensors are float32. K is the number of input channels.

    Attributes:
        hessian: [K, K], ``E[xq xq^T]`` (symmetric), the Hessian of the layer's squared output error
            up to a factor.
        residual: [K, K], ``E[(x - xq) xq^T]``, or None if it was not collected or not yet loaded.
            The row is the channel with the rounding error, the column the channel that predicts it.
        residual_energy: [K], ``E[(x - xq)^2]``.
        mean: [K], ``E[x]``.
        mean_rounded: [K], ``E[xq]``.
        tokens: the number of different tokens behind the means.
        load_residual: loads ``residual``, which only some roundings need; None if there is nothing
            to load.
    """

    hessian: torch.Tensor
    residual: torch.Tensor | None
    residual_energy: torch.Tensor
    mean: torch.Tensor
    mean_rounded: torch.Tensor
    tokens: int
    load_residual: Callable[[], torch.Tensor] | None = None

    @property
    def in_features(self) -> int:
        """The number of input channels, K."""
        return self.hessian.shape[0]

    def to(self, device: torch.device) -> SecondMoments:
        """Return these moments on a device. A residual that is not loaded stays so."""
        return replace(
            self,
            hessian=self.hessian.to(device),
            residual=None if self.residual is None else self.residual.to(device),
            residual_energy=self.residual_energy.to(device),
            mean=self.mean.to(device),
            mean_rounded=self.mean_rounded.to(device),
        )

    def with_residual(self) -> SecondMoments:
        """Return these moments with their residual, on the device of the Hessian.

        It is None only if it was not collected.

        Raises:
            CalibrationError: the file that holds it is missing or damaged.
        """
        if self.residual is not None or self.load_residual is None:
            return self
        residual = self.load_residual().to(self.hessian.device)
        return replace(self, residual=residual, load_residual=None)

    def rotated(self, group: int) -> SecondMoments:
        """Return the moments of the exact input with groups of channels rotated.

        Formats that rotate inputs do not round them to NVFP4. Where ``residual`` tells what that
        rounding changed, the Hessian becomes that of the exact input, up to the products of two
        rounding errors in different channels. There is no residual in the rotated basis.
        """
        hessian = self._exact_hessian()
        for side in (hessian, hessian.mT):
            for start in range(0, len(side), BAND):
                band = side[start : start + BAND]
                band.copy_(rotate(band.contiguous(), group))
        mean = rotate(self.mean.unsqueeze(0), group).squeeze(0)
        return SecondMoments(hessian, None, self.residual_energy, mean, mean, self.tokens)

    def scaled(self, factors: torch.Tensor, noise: torch.Tensor) -> SecondMoments:
        """Return the moments of the input times a factor per channel, and rounded after that.

        What that rounding does to products of two channels is not known. So the Hessian is that of
        the exact input, and only its diagonal grows by ``noise``. There is no residual.

        Args:
            factors: float32 [K].
            noise: float32 [K], the mean square of the rounding error of the scaled input.
        """
        factors, noise = (vector.to(self.hessian.device) for vector in (factors, noise))
        hessian = self._exact_hessian()
        hessian.mul_(factors).mul_(factors.unsqueeze(1)).diagonal().add_(noise)
        mean = self.mean * factors
        return SecondMoments(hessian, None, noise, mean, mean, self.tokens)

    def _exact_hessian(self) -> torch.Tensor:
        """Return a new matrix ``E[x x^T]``, or ``E[xq xq^T]`` if no residual was collected."""
        exact = self.hessian.clone()
        residual = self.load_residual() if self.load_residual else self.residual
        if residual is None:
            return exact
        for start in range(0, len(exact), BAND):
            band = residual[start : start + BAND].to(exact.device)
            exact[start : start + BAND] += band
            exact[:, start : start + BAND] += band.mT
        exact.diagonal().add_(self.residual_energy)
        return exact
