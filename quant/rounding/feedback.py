"""Error feedback: the triangular factor that says how an error is best made up for.

With ``A = L D L^T`` (``L`` unit lower triangular) the squared output error ``tr(E A E^T)`` of a
weight error ``E`` is ``sum_k D_k ||(E L)_k||^2``. Rounding the channels from the last to the
first, each to the value nearest to ``w_k + sum_{j > k} E_j L_jk`` (``E = W - Q``), makes every
term as small as rounding can: the LDLQ order of Chee et al. 2023 (QuIP, arXiv 2307.13304,
theorem 6), the same result as GPTQ (Frantar et al. 2022, arXiv 2210.17323) without an inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import FormatError
from .second_moments import SecondMoments

# Of the mean diagonal, added to it: GPTQ's own default, and enough for float32.
_DAMPING = 0.01
_MOST_DAMPING = 1.0
# The explained share of a rounding error has to beat this multiple of what chance explains:
# neighbouring tokens are alike, so there are fewer independent ones than were counted.
_CHANCE = 1.5
# Random vectors behind an estimate of a trace; a few percent are near enough.
_PROBES = 16


@dataclass(frozen=True, eq=False)
class FeedbackFactor:
    """How errors of an input's channels propagate, K channels in the order ``order``.

    ``order`` int64 [K]: channels by ascending energy, whole blocks of ``block`` channels kept
    together, so that rounding from the end begins with the loudest. ``lower`` float32 [K, K]:
    unit lower triangular in that order. ``weight`` float32 [K]: what the squared error of each
    channel costs.
    ``correction`` float32 [K, K] or None: ``E[(x - xq) xq^T] A^-1``, rows in the model's order of
    channels, columns in ``order``; ``W + W @ correction`` is the weight that does best on rounded
    inputs.
    """

    order: torch.Tensor
    lower: torch.Tensor
    weight: torch.Tensor
    correction: torch.Tensor | None
    block: int

    def permute(self, weight: torch.Tensor, *, compensate: bool) -> torch.Tensor:
        """Return the target ``[rows, K]`` float32 for a weight, channels in ``order``."""
        weight = weight.float()
        target = weight[:, self.order]
        if compensate and self.correction is not None:
            target.addmm_(weight, self.correction)
        return target

    def restore(self, values: torch.Tensor) -> torch.Tensor:
        """Return columns in ``order`` to the model's own order."""
        result = torch.empty_like(values)
        result[:, self.order] = values
        return result


def factorize(moments: SecondMoments, block: int, *, compensate: bool = True) -> FeedbackFactor:
    """Factorize the Hessian of an input, shrunk and damped so that it can be trusted.

    Peak memory is about three float32 matrices ``[K, K]`` beside the moments, four with a
    correction. K must be a multiple of ``block``.

    Raises:
        FormatError: the moments hold NaN or infinity.
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
    lower.div_(diagonal)  # column k by its diagonal: unit lower
    return FeedbackFactor(order, lower, diagonal.square(), correction, block)


def _block_order(energy: torch.Tensor, block: int) -> torch.Tensor:
    """Sort blocks of channels by their energy, and the channels within, ascending."""
    by_block = energy.view(-1, block)
    blocks = torch.argsort(by_block.sum(1), stable=True)
    inner = torch.argsort(by_block[blocks], dim=1, stable=True)
    return (blocks.unsqueeze(1) * block + inner).reshape(-1)


def shrink(hessian: torch.Tensor, tokens: int) -> torch.Tensor:
    """Shrink a sample Hessian toward its diagonal by what chance correlations amount to.

    The coefficient of Schaefer and Strimmer 2005 (doi:10.2202/1544-6115.1175) for correlations,
    with the variance of a correlation under normality, ``(1 + r^2) / tokens``. With few tokens it
    nears 1, and error feedback nears plain rounding.
    """
    diagonal = hessian.diagonal()
    active = int((diagonal > 0).sum())  # a silent channel correlates with none, not even by chance
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
    """Return the Cholesky factor of a matrix, damped in place as much as it takes."""
    diagonal = matrix.diagonal()
    mean = float(diagonal.mean())
    if not torch.isfinite(diagonal).all():
        raise FormatError("the second moments of its input are not finite; calibrate again")
    damping = _DAMPING
    added = 0.0
    while damping <= _MOST_DAMPING:
        diagonal.add_((damping - added) * mean if mean > 0 else 1.0)
        added = damping
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info) == 0:
            return factor
        damping *= 10.0
    raise FormatError("the second moments of its input are not positive; calibrate again")


def _correction(
    moments: SecondMoments, residual: torch.Tensor, lower: torch.Tensor, order: torch.Tensor
) -> torch.Tensor:
    """Return what each channel's rounding error is predicted to be from the rounded input.

    The regression of ``x - xq`` on ``xq``, each channel shrunk by its adjusted R^2 (Stein): what
    chance alone would explain is not carried over, so channels without a pattern are left alone.
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
    """Estimate ``tr(H A^-1)``, the free parameters of a regression with ``A`` for ``H``: 0-d.

    By random signs (Hutchinson 1990), always the same ones.
    """
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (len(order), _PROBES), generator=generator)
    signs = (signs * 2 - 1).to(hessian)
    product = (hessian @ torch.empty_like(signs).index_copy_(0, order, signs))[order]
    left = torch.linalg.solve_triangular(lower, signs, upper=False)
    right = torch.linalg.solve_triangular(lower, product, upper=False)
    return (left * right).sum().div_(_PROBES).clamp_(0.0, float(len(order)))
