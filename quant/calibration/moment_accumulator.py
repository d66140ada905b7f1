"""Gathers the second moments of a layer's input while the model samples."""

from __future__ import annotations

import uuid
from pathlib import Path

import torch

from ..formats.nvfp4 import round_through_nvfp4
from ..formats.nvfp4_scales import NVFP4_MAX
from .moments import RESIDUAL, VECTORS, MomentPart, panels


def moments_bytes(in_features: int) -> int:
    """Return the memory that collecting an input of this width takes, in bytes."""
    triangle = sum((stop - start) * stop for start, stop in panels(in_features))
    return 4 * (triangle + in_features * in_features + len(VECTORS) * in_features)


class MomentAccumulator:
    """Running sums over the tokens of one input, on the device of the activations."""

    def __init__(self, in_features: int, device: torch.device) -> None:
        """Start at zero."""

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float32, device=device)

        self.in_features = in_features
        self.device = device
        self._panels = [zeros(stop - start, stop) for start, stop in panels(in_features)]
        self._residual = zeros(in_features, in_features)
        self._vectors = {name: zeros(in_features) for name in VECTORS}
        # Tokens summed, different tokens, calls, and calls with the same tokens as the call before.
        self._counts = torch.zeros(4, dtype=torch.int64, device=device)
        # By guidance branches, which may alternate: repetitions so far, tokens of one call.
        self._streaks: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def add(
        self,
        rows: torch.Tensor,
        amax: torch.Tensor,
        fresh: torch.Tensor,
        branches: tuple[int, ...] = (),
    ) -> None:
        """Add tokens. Waits for the device only if the model moved to another one during the run.

        Args:
            rows: ``[T, K]``; rows with NaN or infinity are left out.
            amax: 0-d, the largest |x| of the whole call, which sets the runtime's tensor scale.
            fresh: 0-d bool, whether the call differs from the previous one of these branches. The
                first repetition counts, because the first call lacks the tokens sampled as rows.
                Later repetitions are left out.
            branches: guidance branches of the call.
        """
        x, amax, fresh = rows.to(self.device).float(), amax.to(self.device), fresh.to(self.device)
        zero = torch.zeros((), dtype=torch.int64, device=self.device)
        repeats, latest = self._streaks.get(branches, (zero, zero))
        repeats = torch.where(fresh, zero, repeats + 1)
        usable = torch.isfinite(x).all(dim=1) & (repeats <= 1) & torch.isfinite(amax)
        x = torch.where(usable.unsqueeze(1), x, 0.0)
        scale = torch.nan_to_num(amax.float(), 1.0, 1.0, 1.0) / NVFP4_MAX
        rounded = round_through_nvfp4(x, scale, torch.float32)
        residual = x - rounded
        for panel, (start, stop) in zip(self._panels, panels(self.in_features), strict=True):
            panel.addmm_(rounded[:, start:stop].t(), rounded[:, :stop])
        self._residual.addmm_(residual.t(), rounded)
        self._vectors["sum"] += x.sum(0)
        self._vectors["sum_rounded"] += rounded.sum(0)
        self._vectors["residual_energy"] += residual.square().sum(0)
        tokens = usable.sum()
        # The first of two equal calls may lack some tokens; the others count once.
        different = torch.where(fresh, tokens, (tokens - latest).clamp(min=0))
        self._streaks[branches] = (repeats, torch.where(fresh, tokens, tokens.maximum(latest)))
        calls = torch.stack([torch.ones_like(tokens), (~fresh).to(tokens)])
        self._counts += torch.cat([torch.stack([tokens, different]), calls])

    def finish(self, run: str, folder: Path | None) -> MomentPart | None:
        """Return the sums as a part of ``run``, written to ``folder`` if one is given.

        None if no token was usable. Reads from the device, so hooks must not call it.

        Raises:
            CalibrationError: the folder cannot be written.
        """
        summed, tokens, calls, stale = self._counts.tolist()
        if not tokens:
            return None
        for sums in (*self._panels, self._residual, *self._vectors.values()):
            sums.mul_(tokens / summed)
        tensors = {f"hessian.{i}": panel.cpu() for i, panel in enumerate(self._panels)}
        # bfloat16 halves the size, and its rounding is below the sampling error.
        tensors[RESIDUAL] = self._residual.to(torch.bfloat16).cpu()
        tensors |= {name: vector.cpu() for name, vector in self._vectors.items()}
        part = MomentPart(
            uuid.uuid4().hex, run, tokens, self.in_features, 2 * stale >= calls, tensors
        )
        return part if folder is None else part.stored_in(folder, listed=False)
