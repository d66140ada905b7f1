"""Second moments of a layer's input: what error feedback needs to know."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class SecondMoments:
    """Means over observed tokens; ``x`` is the input, ``xq`` the input as NVFP4 rounds it.

    All float32, K input channels. ``hessian`` [K, K] is ``E[xq xq^T]`` (symmetric), the Hessian
    of the layer's squared output error up to a factor. ``residual`` [K, K] is
    ``E[(x - xq) xq^T]``, row: the channel that lost something, column: the channel it can be
    recovered from; None when it was not collected. ``residual_energy`` [K] is ``E[(x - xq)^2]``.
    ``mean`` and ``mean_rounded`` [K] are ``E[x]`` and ``E[xq]``. ``tokens`` is how many different
    tokens they are means over.
    """

    hessian: torch.Tensor
    residual: torch.Tensor | None
    residual_energy: torch.Tensor
    mean: torch.Tensor
    mean_rounded: torch.Tensor
    tokens: int

    @property
    def in_features(self) -> int:
        """K."""
        return self.hessian.shape[0]

    def to(self, device: torch.device) -> SecondMoments:
        """Return the same on a device."""
        return SecondMoments(
            hessian=self.hessian.to(device),
            residual=None if self.residual is None else self.residual.to(device),
            residual_energy=self.residual_energy.to(device),
            mean=self.mean.to(device),
            mean_rounded=self.mean_rounded.to(device),
            tokens=self.tokens,
        )
