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
from .second_moments import SecondMoments

# Share of the mean diagonal that is added to the diagonal. It is GPTQ's default, and enough for
# float32.
_DAMPING = 0.01
_MOST_DAMPING = 1.0
# The explained share of a rounding error must exceed this multiple of the share that chance
# explains. Neighbouring tokens are alike, so fewer tokens are independent than are counted.
_CHANCE = 1.5
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
        correction: float32 [K, K] or None: ``E[(x - xq) xq^T] A^-1``, rows in the model's order of
            channels, columns in ``order``. ``W + W @ correction`` is the best weight for rounded
            inputs.
        block: channels per block.
    """

    order: torch.Tensor
    lower: torch.Tensor
    weight: torch.Tensor
    correction: torch.Tensor | None
    block: int

    def permute(self, weight: torch.Tensor, *, compensate: bool) -> torch.Tensor:
        """Return the values to round, ``[rows, K]`` float32 with channels in ``order``.

        With ``compensate``, these are the best weight for rounded inputs.
        """
        weight = weight.float()
        target = weight[:, self.order]
        if compensate and self.correction is not None:
            target.addmm_(weight, self.correction)
        return target

    def restore(self, values: torch.Tensor) -> torch.Tensor:
        """Return values with their columns back in the model's order."""
        result = torch.empty_like(values)
        result[:, self.order] = values
        return result


def factorize(moments: SecondMoments, block: int, *, compensate: bool = True) -> FeedbackFactor:
    """Shrink, damp and factorize the Hessian of an input.

    K must be a multiple of ``block``. Besides the moments, the peak memory is about three float32
    matrices ``[K, K]``, or four with a correction.

    Raises:
        FormatError: the moments hold NaN or infinity, or the Hessian is not positive.
    """
    hessian = moments.hessian
    order = _block_order(hessian.diagonal(), block)
    shrunk = shrink(hessian, moments.tokens)
    shrunk = shrunk.index_select(0, order).index_select(1, order)
    lower = _cholesky(shrunk)
    del shrunk
    diagonal = lower.diagonal().clone()
    correction = None
    if compensate and moments.residual is not None:
        correction = _correction(moments, moments.residual, lower, order)
    lower.div_(diagonal)  # dividing column k by its diagonal makes it unit lower triangular
    return FeedbackFactor(order, lower, diagonal.square(), correction, block)


def _block_order(energy: torch.Tensor, block: int) -> torch.Tensor:
    """Return the channels sorted by block, then inside each block, by increasing energy."""
    by_block = energy.view(-1, block)
    blocks = torch.argsort(by_block.sum(1), stable=True)
    inner = torch.argsort(by_block[blocks], dim=1, stable=True)
    return (blocks.unsqueeze(1) * block + inner).reshape(-1)


def shrink(hessian: torch.Tensor, tokens: int) -> torch.Tensor:
    """Shrink a sample Hessian toward its diagonal to remove correlations that arise by chance.

    The shrinkage is the coefficient of Schaefer and Strimmer 2005 (doi:10.2202/1544-6115.1175) for
    correlations, with the variance of a correlation under normality, ``(1 + r^2) / tokens``. With
    few tokens it approaches 1, and error feedback approaches plain rounding.
    """
    diagonal = hessian.diagonal()
    active = int((diagonal > 0).sum())  # a channel of zeros has no correlations, even by chance
    scale = diagonal.clamp_min(torch.finfo(torch.float32).tiny).rsqrt()
    squares = ((hessian * scale).mul_(scale.unsqueeze(1))).square_()
    squares.diagonal().zero_()
    off_diagonal = float(squares.sum(dtype=torch.float64))
    del squares
    variance = (active * (active - 1) + off_diagonal) / max(1, tokens)
    share = min(1.0, max(0.0, variance / off_diagonal)) if off_diagonal > 0 else 1.0
    shrunk = hessian * (1.0 - share)
    shrunk.diagonal().copy_(diagonal)
    return shrunk


def _cholesky(matrix: torch.Tensor) -> torch.Tensor:
    """Return the Cholesky factor of a matrix, which is damped in place as much as needed."""
    diagonal = matrix.diagonal()
    mean = float(diagonal.mean())
    if not torch.isfinite(diagonal).all():
        raise FormatError("the Hessian of the layer's input is not finite; calibrate again")
    damping = _DAMPING
    added = 0.0
    while damping <= _MOST_DAMPING:
        diagonal.add_((damping - added) * mean if mean > 0 else 1.0)
        added = damping
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info) == 0:
            return factor
        damping *= 10.0
    raise FormatError("the Hessian of the layer's input is not positive; calibrate again")


def _correction(
    moments: SecondMoments, residual: torch.Tensor, lower: torch.Tensor, order: torch.Tensor
) -> torch.Tensor:
    """Return the matrix that predicts each channel's rounding error from the rounded input.

    It is the regression of ``x - xq`` on ``xq``, with each channel shrunk by its adjusted R^2
    (Stein). This removes the share that chance explains, so channels whose error cannot be
    predicted are not corrected.
    """
    # residual A^-1 = Z^T L^-1 with Z = L^-1 residual^T
    freedom = _degrees_of_freedom(moments.hessian, lower, order)
    solved = torch.linalg.solve_triangular(lower, residual.t()[order], upper=False)
    explained = solved.square().sum(0)
    by_chance = moments.residual_energy * (_CHANCE * freedom / max(1, moments.tokens))
    share = ((explained - by_chance) / explained.clamp_min(1e-30)).clamp_(0.0, 1.0)
    solved.mul_(share)
    return torch.linalg.solve_triangular(lower, solved.t(), upper=False, left=False)


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
