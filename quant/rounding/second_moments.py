"""Second moments of a layer's input, which error feedback needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..formats.rotation import rotate


@dataclass(frozen=True, eq=False)
class SecondMoments:
    """Means over observed tokens. ``x`` is the input, ``xq`` is the input rounded to NVFP4.

    All tensors are float32. K is the number of input channels.

    Attributes:
        hessian: [K, K], ``E[xq xq^T]`` (symmetric), the Hessian of the layer's squared output error
            up to a factor.
        residual: [K, K], ``E[(x - xq) xq^T]``, or None if it was not collected. The row is the
            channel with the rounding error, the column the channel that predicts it.
        residual_energy: [K], ``E[(x - xq)^2]``.
        mean: [K], ``E[x]``.
        mean_rounded: [K], ``E[xq]``.
        tokens: the number of different tokens behind the means.
    """

    hessian: torch.Tensor
    residual: torch.Tensor | None
    residual_energy: torch.Tensor
    mean: torch.Tensor
    mean_rounded: torch.Tensor
    tokens: int

    @property
    def in_features(self) -> int:
        """The number of input channels, K."""
        return self.hessian.shape[0]

    def to(self, device: torch.device) -> SecondMoments:
        """Return these moments on a device."""
        return SecondMoments(
            hessian=self.hessian.to(device),
            residual=None if self.residual is None else self.residual.to(device),
            residual_energy=self.residual_energy.to(device),
            mean=self.mean.to(device),
            mean_rounded=self.mean_rounded.to(device),
            tokens=self.tokens,
        )

    def rotated(self, group: int) -> SecondMoments:
        """Return the moments of the exact input with groups of channels rotated.

        Formats that rotate inputs do not round them to NVFP4. Where ``residual`` tells what that
        rounding changed, the Hessian becomes that of the exact input, up to the products of two
        rounding errors in different channels. There is no residual in the rotated basis.
        """
        hessian = rotate(self._exact_hessian(), group).mT
        hessian = rotate(hessian.contiguous(), group)
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
        if self.residual is None:
            hessian = hessian.clone()
        hessian.mul_(factors).mul_(factors.unsqueeze(1)).diagonal().add_(noise)
        mean = self.mean * factors
        return SecondMoments(hessian, None, noise, mean, mean, self.tokens)

    def _exact_hessian(self) -> torch.Tensor:
        if self.residual is None:
            return self.hessian
        exact = self.hessian + self.residual
        exact.add_(self.residual.mT)
        exact.diagonal().add_(self.residual_energy)
        return exact
