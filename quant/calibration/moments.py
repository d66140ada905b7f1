"""Second moments of a layer's input, collected during sampling within a memory budget.

The Hessian of a real layer takes tens to hundreds of megabytes, those of a whole model tens of
gigabytes. So each sampling run collects them for another set of inputs, as many as the budget
allows. The result of a run is an immutable *part* that may be on disk. Parts of one input add up.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..errors import CalibrationError, FileError, SourceError, is_out_of_memory
from ..files.write import make_folder, written_whole
from ..formats.nvfp4 import round_through_nvfp4
from ..formats.nvfp4_scales import NVFP4_MAX
from ..rounding.second_moments import SecondMoments
from ..sources.safetensors_file import SafetensorsFile
from ..sources.write_tensors import write_tensors
from .unlisted import mark

# Rows of the symmetric matrix kept together. Only values up to the last column of their diagonal
# are gathered and stored, so smaller bands waste less; earlier versions wrote bands of 1024.
_PANEL = 256
_VECTORS = ("sum", "sum_rounded", "residual_energy")
_HESSIAN, _ROWS, _RESIDUAL = "hessian", "rows of the hessian", "residual"


def moments_bytes(in_features: int) -> int:
    """Return the memory that collecting an input of this width takes, in bytes."""
    triangle = sum((stop - start) * stop for start, stop in _panels(in_features))
    return 4 * (triangle + in_features * in_features + len(_VECTORS) * in_features)


class MomentAccumulator:
    """Running sums over the tokens of one input, on the device of the activations."""

    def __init__(self, in_features: int, device: torch.device) -> None:
        """Start at zero."""

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float32, device=device)

        self.in_features = in_features
        self.device = device
        self._panels = [zeros(stop - start, stop) for start, stop in _panels(in_features)]
        self._residual = zeros(in_features, in_features)
        self._vectors = {name: zeros(in_features) for name in _VECTORS}
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
        for panel, (start, stop) in zip(self._panels, _panels(self.in_features), strict=True):
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
        tensors[_RESIDUAL] = self._residual.to(torch.bfloat16).cpu()
        tensors |= {name: vector.cpu() for name, vector in self._vectors.items()}
        part = MomentPart(
            uuid.uuid4().hex, run, tokens, self.in_features, 2 * stale >= calls, tensors
        )
        return part if folder is None else part.stored_in(folder, listed=False)


@dataclass(frozen=True, eq=False)
class MomentPart:
    """Sums over ``tokens`` tokens of one input in one run, in memory or in a file.

    ``tensors``: ``hessian.0``, ``hessian.1``, ... float32, the bands of rows of the sum of
    ``xq xq^T`` up to their diagonal; ``residual`` bfloat16 [K, K], the sum of ``(x - xq) xq^T``;
    and float32 [K] ``sum``, ``sum_rounded``, ``residual_energy``. None: they are in ``path``.
    ``repeats``: most calls of the run had the same tokens as the call before.
    """

    id: str
    run: str
    tokens: int
    in_features: int
    repeats: bool
    tensors: Mapping[str, torch.Tensor] | None = None
    path: Path | None = None

    def stored_in(self, folder: Path, *, listed: bool = True) -> MomentPart:
        """Return this part as a file in ``folder``, which is written or linked if needed.

        ``listed``: a calibration that lists it is about to be saved. Otherwise it is marked, so
        that it can be removed if this process dies before that.
        """
        target = folder / f"{self.id}.safetensors"
        if not target.exists():
            try:
                if not listed:
                    mark(folder, self.id)
                self._write(target)
            except (FileError, OSError) as error:
                raise CalibrationError(
                    f"Hessians: {error}. Or set hessians_mb to 0 to do without them"
                ) from error
        return replace(self, tensors=None, path=target)

    def _write(self, target: Path) -> None:
        make_folder(target.parent)
        if self.path is not None and self.tensors is None:
            with suppress(OSError):
                os.link(self.path, target)  # a link is enough, because parts never change
                return
        with written_whole(target) as file:
            if self.tensors is not None:
                write_tensors(file, self.tensors)
            elif self.path is not None:
                with self.path.open("rb") as stored:
                    shutil.copyfileobj(stored, file, 1 << 20)

    def require_readable(self) -> None:
        """Raise `CalibrationError` if its file is missing or damaged; reads only the header."""
        if self.path is not None:
            self.add_to({}, only=())

    def add_to(
        self,
        total: dict[str, torch.Tensor],
        only: Collection[str] | None = None,
        *,
        but: Collection[str] = (),
    ) -> None:
        """Add the sums, or only some of them, to ``total``, one tensor at a time, as float32.

        ``only`` names the tensors to add, None means all; those of ``but`` are left out.

        Raises:
            CalibrationError: the file is missing or damaged.
        """
        if self.tensors is not None:
            for name in self.tensors if only is None else only:
                if name not in but:
                    _add(total, name, self.tensors[name])
            return
        assert self.path is not None
        try:
            # Not safetensors' own reader, which leaves memory in use for each tensor that it reads.
            with SafetensorsFile(self.path) as file:
                for name in file.tensors if only is None else only:
                    if name not in but:
                        _add(total, name, file.load(name))
        except (OSError, SourceError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            why = str(error).removeprefix(f"{self.path} ").removesuffix("; fetch it again")
            raise CalibrationError(
                f"{self.path}: cannot read the Hessian of a calibration: {why}. Calibrate again, "
                "or delete this file and load the calibration again to continue without it"
            ) from error


@dataclass(frozen=True, eq=False)
class InputMoments:
    """All parts of one input; see `SecondMoments`."""

    parts: tuple[MomentPart, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens in all parts."""
        return sum(part.tokens for part in self.parts)

    @property
    def in_features(self) -> int:
        """Width K of the input."""
        return self.parts[0].in_features

    @property
    def runs(self) -> frozenset[str]:
        """Ids of the runs of the parts, which therefore are not held-out runs for this input."""
        return frozenset(part.run for part in self.parts)

    @property
    def repeats(self) -> bool:
        """Whether all calls of a run have the same tokens, as for a prompt's context."""
        return any(part.repeats for part in self.parts)

    def load_means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``mean`` and ``mean_rounded`` over all parts, without reading their matrices.

        Raises:
            CalibrationError: a part's file is missing or damaged.
        """
        total: dict[str, torch.Tensor] = {}
        for part in self.parts:
            part.add_to(total, ("sum", "sum_rounded"))
        return total["sum"].div_(self.tokens), total["sum_rounded"].div_(self.tokens)

    def load(self) -> SecondMoments:
        """Return the means over all parts, on the CPU. Their residual is loaded when it is needed.

        Raises:
            CalibrationError: a part's file is missing or damaged.
        """
        width, tokens = self.in_features, self.tokens
        total = {_HESSIAN: torch.zeros(width, width), _ROWS: torch.zeros(width)}
        try:
            for part in self.parts:
                part.add_to(total, but=(_RESIDUAL,))
            if not (total[_ROWS] == len(self.parts)).all():
                raise ValueError("rows are missing")
            mean, rounded, energy = (total.pop(name).view(width).div_(tokens) for name in _VECTORS)
        except (KeyError, RuntimeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise self._damaged(error) from error
        hessian = total[_HESSIAN].div_(tokens)
        for start, stop in _panels(width):
            hessian[:stop, start:stop] = hessian[start:stop, :stop].mT.clone()
        return SecondMoments(hessian, None, energy, mean, rounded, tokens, self._load_residual)

    def _load_residual(self) -> torch.Tensor:
        """Return the mean of ``(x - xq) xq^T`` over all parts, float32 [K, K] on the CPU.

        Raises:
            CalibrationError: a part's file is missing or damaged.
        """
        total = {_RESIDUAL: torch.zeros(self.in_features, self.in_features)}
        try:
            for part in self.parts:
                part.add_to(total, (_RESIDUAL,))
        except (KeyError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise self._damaged(error) from error
        return total[_RESIDUAL].div_(self.tokens)

    def _damaged(self, error: Exception) -> CalibrationError:
        width = self.in_features
        return CalibrationError(
            f"the Hessian files of an input of width {width} are damaged: {error}. Calibrate again"
        )


def _panels(width: int) -> list[tuple[int, int]]:
    return [(start, min(start + _PANEL, width)) for start in range(0, width, _PANEL)]


def _add(total: dict[str, torch.Tensor], name: str, tensor: torch.Tensor) -> None:
    """Add stored sums to their total; a band of the Hessian of any height to its rows."""
    if name.startswith(f"{_HESSIAN}."):
        rows, stop = tensor.shape
        total[_HESSIAN][stop - rows : stop, :stop] += tensor
        total[_ROWS][stop - rows : stop] += 1
    elif name in total:  # in bands: adding another dtype makes a copy in float32
        for band, part in zip(total[name].split(_PANEL), tensor.split(_PANEL), strict=True):
            band += part
    else:
        total[name] = tensor.to(torch.float32, copy=True)
