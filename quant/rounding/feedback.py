"""The triangular factor of error feedback, which tells how later channels compensate an error.

With ``A = L D L^T`` (``L`` unit lower triangular), the squared output error ``tr(E A E^T)`` of a
weight error ``E = W - Q`` is ``sum_k D_k ||(E L)_k||^2``. Channels are rounded from the last to the
first, each to the value nearest to ``w_k + sum_{j > k} E_j L_jk``, which makes every term as small
as rounding allows. This is the LDLQ order of Chee et al. 2023 (QuIP, arXiv 2307.13304, theorem 6).
It gives the same result as GPTQ (Frantar et al. 2022, arXiv 2210.17323) and needs no inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import FormatError
from .second_moments import BAND, SecondMoments

# Share of the mean diagonal that is added to the diagonal. It is GPTQ's default, and enough for
# float32.
_DAMPING = 0.01
_MOST_DAMPING = 1.0
# The explained share of a rounding error must exceed this multiple of the share that chance
# explains. Neighbouring tokens are alike, so fewer tokens are independent than are counted.
_CHANCE = 1.5
# Share of the step from the weight to the best one for rounded inputs. A whole step gives the least
# error of single model calls. But it also shifts the output for exact inputs, by the square of the
# step, and in whole samplings that costs more. Measured: see docs/fidelity.md, "How far to move".
_STEP = 0.75
# Number of random vectors for the estimate of a trace. An error of a few percent does not matter.
_PROBES = 16


@dataclass(frozen=True, eq=False)
class FeedbackFactor:
    """How errors propagate between the K channels of an input.

    Attributes:
        order: int64 [K], channels in order of increasing energy. Blocks of ``block`` channels stay
            together. Rounding goes from the end, so it begins with the highest energy.
        lower: float32 [K, K], unit lower triangular, in ``order``.
        weight: float32 [K], the cost of each channel's squared error, in ``order``.
        regression: how the best weight for rounded inputs differs; None if it was not asked for.
        block: channels per block.
    """

    order: torch.Tensor
    lower: torch.Tensor
    weight: torch.Tensor
    regression: Regression | None
    block: int

    def permute(self, weight: torch.Tensor, *, compensate: bool) -> torch.Tensor:
        """Return the values to round, ``[rows, K]`` float32 with channels in ``order``.

        With ``compensate``, the weight is moved toward the best one for rounded inputs.
        """
        weight = weight.float()
        target = weight[:, self.order]
        if not compensate or self.regression is None:
            return target
        lost = (weight * (_STEP * self.regression.share)) @ self.regression.residual
        lost = lost[:, self.order]
        # lost A^-1 with A = L D L^T needs no other matrix [K, K]
        lost = torch.linalg.solve_triangular(
            self.lower.mT, lost, upper=True, left=False, unitriangular=True
        )
        lost = torch.linalg.solve_triangular(
            self.lower, lost.div_(self.weight), upper=False, left=False, unitriangular=True
        )
        return target.add_(lost)

    def restore(self, values: torch.Tensor) -> torch.Tensor:
        """Return values with their columns back in the model's order."""
        result = torch.empty_like(values)
        result[:, self.order] = values
        return result


@dataclass(frozen=True, eq=False)
class Regression:
    """What the rounded input still tells about the lost part of each channel.

    With both, ``W + (W * share) @ residual @ A^-1`` is the best weight for rounded inputs.

    Attributes:
        residual: float32 [K, K], ``E[(x - xq) xq^T]``, in the model's order of channels.
        share: float32 [K], what is kept of each row after the share that chance explains.
    """

    residual: torch.Tensor
    share: torch.Tensor


def factorize(moments: SecondMoments, block: int, *, compensate: bool = True) -> FeedbackFactor:
    """Shrink, damp and factorize the Hessian of an input.

    K must be a multiple of ``block``. Besides the moments, the peak memory is one float32 matrix
    ``[K, K]``, which becomes the factor in place.

    Raises:
        FormatError: the moments hold NaN or infinity, or the Hessian is not positive.
    """
    order = _block_order(moments.hessian.diagonal(), block)
    lower = _cholesky(moments, order)
    regression = None
    if compensate and moments.residual is not None:
        share = _explained_share(moments, moments.residual, lower, order)
        regression = Regression(moments.residual, share)
    diagonal = lower.diagonal().clone()
    lower.div_(diagonal)  # dividing column k by its diagonal makes it unit lower triangular
    return FeedbackFactor(order, lower, diagonal.square(), regression, block)


def _block_order(energy: torch.Tensor, block: int) -> torch.Tensor:
    """Return the channels sorted by block, then inside each block, by increasing energy."""
    by_block = energy.view(-1, block)
    blocks = torch.argsort(by_block.sum(1), stable=True)
    inner = torch.argsort(by_block[blocks], dim=1, stable=True)
    return (blocks.unsqueeze(1) * block + inner).reshape(-1)


def shrinkage(hessian: torch.Tensor, tokens: int) -> float:
    """Return the share of correlations to remove from a sample Hessian, because chance makes them.

    This is the coefficient of Schaefer and Strimmer 2005 (doi:10.2202/1544-6115.1175) for
    correlations, with the variance of a correlation under normality, ``(1 + r^2) / tokens``. With
    few tokens it approaches 1, and error feedback approaches plain rounding.
    """
    diagonal = hessian.diagonal()
    active = int((diagonal > 0).sum())  # a channel of zeros has no correlations, even by chance
    scale = diagonal.clamp_min(torch.finfo(torch.float32).tiny).rsqrt()
    squares = []
    for start, stop in _bands(len(diagonal)):
        band = (hessian[start:stop] * scale).mul_(scale[start:stop].unsqueeze(1))
        band[:, start:stop].diagonal().zero_()
        squares.append(band.square_().sum(dtype=torch.float64))
    off_diagonal = float(torch.stack(squares).sum())
    variance = (active * (active - 1) + off_diagonal) / max(1, tokens)
    return min(1.0, max(0.0, variance / off_diagonal)) if off_diagonal > 0 else 1.0


def _shrunk(hessian: torch.Tensor, share: float, order: torch.Tensor) -> torch.Tensor:
    """Return the Hessian with its channels in ``order``, shrunk toward its diagonal."""
    shrunk = torch.empty_like(hessian)
    for start, stop in _bands(len(order)):
        shrunk[start:stop] = hessian.index_select(0, order[start:stop]).index_select(1, order)
    shrunk.mul_(1.0 - share)
    shrunk.diagonal().copy_(hessian.diagonal()[order])
    return shrunk


def _cholesky(moments: SecondMoments, order: torch.Tensor) -> torch.Tensor:
    """Return the Cholesky factor of the shrunk Hessian, damped as much as needed."""
    hessian = moments.hessian
    if not torch.isfinite(hessian.diagonal()).all():
        raise FormatError("the Hessian of the layer's input is not finite; calibrate again")
    mean = float(hessian.diagonal().mean())
    share = shrinkage(hessian, moments.tokens)
    damping = _DAMPING
    while damping <= _MOST_DAMPING:
        # Its transpose is the matrix itself, in the order of columns that LAPACK works in.
        matrix = _shrunk(hessian, share, order).mT
        matrix.diagonal().add_(damping * mean if mean > 0 else 1.0)
        info = torch.empty((), dtype=torch.int32, device=matrix.device)
        torch.linalg.cholesky_ex(matrix, out=(matrix, info))
        if int(info) == 0:
            return matrix
        damping *= 10.0
    raise FormatError("the Hessian of the layer's input is not positive; calibrate again")


def _explained_share(
    moments: SecondMoments, residual: torch.Tensor, lower: torch.Tensor, order: torch.Tensor
) -> torch.Tensor:
    """Return how much of each channel's regression on the rounded input to keep, float32 [K].

    It is the regression of ``x - xq`` on ``xq``, with each channel shrunk by its adjusted R^2
    (Stein). This removes the share that chance explains, so channels whose error cannot be
    predicted are not corrected.
    """
    freedom = _degrees_of_freedom(moments.hessian, lower, order)
    explained = torch.empty_like(moments.residual_energy)
    for start, stop in _bands(len(order)):
        # residual A^-1 residual^T is Z^T Z with Z = L^-1 residual^T; its diagonal is enough
        solved = residual[start:stop].index_select(1, order).mT
        solved = torch.linalg.solve_triangular(lower, solved, upper=False)
        explained[start:stop] = solved.square_().sum(0)
    by_chance = moments.residual_energy * (_CHANCE * freedom / max(1, moments.tokens))
    return ((explained - by_chance) / explained.clamp_min(1e-30)).clamp_(0.0, 1.0)


def _bands(channels: int) -> list[tuple[int, int]]:
    return [(start, min(start + BAND, channels)) for start in range(0, channels, BAND)]


def _degrees_of_freedom(
    hessian: torch.Tensor, lower: torch.Tensor, order: torch.Tensor
) -> torch.Tensor:
    """Estimate ``tr(H A^-1)``, the number of free parameters of the regression, 0-d.

    Uses random signs (Hutchinson 1990) from a fixed seed.
    """
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (len(order), _PROBES), generator=generator)
    signs = (signs * 2 - 1).to(hessian)
    product = (hessian @ torch.empty_like(signs).index_copy_(0, order, signs))[order]
    left = torch.linalg.solve_triangular(lower, signs, upper=False)
    right = torch.linalg.solve_triangular(lower, product, upper=False)
    return (left * right).sum().div_(_PROBES).clamp_(0.0, float(len(order)))
