"""Second moments of a layer's input, collected during sampling within a memory budget.

The Hessian of a real layer takes tens to hundreds of megabytes, those of a whole model tens of
gigabytes. So each sampling run collects them for another set of inputs, as many as the budget
allows. The result of a run is an immutable *part* that may be on disk. Parts of one input add up.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..errors import CalibrationError, FileError, SourceError, is_out_of_memory
from ..files.write import make_folder, written_whole
from ..rounding.second_moments import SecondMoments
from ..sources.safetensors_file import SafetensorsFile
from ..sources.write_tensors import write_tensors
from .unlisted import mark

# Rows of the symmetric matrix kept together. Only values up to the last column of their diagonal
# are gathered and stored, so smaller bands waste less; earlier versions wrote bands of 1024.
_PANEL = 256
#: The tensors of a part beside its matrices, [K].
VECTORS = ("sum", "sum_rounded", "residual_energy")
_HESSIAN, _ROWS, RESIDUAL = "hessian", "rows of the hessian", "residual"


def panels(width: int) -> list[tuple[int, int]]:
    """Return the bands of rows, from and to, in which a Hessian of this width is stored."""
    return [(start, min(start + _PANEL, width)) for start in range(0, width, _PANEL)]


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
                part.add_to(total, but=(RESIDUAL,))
            if not (total[_ROWS] == len(self.parts)).all():
                raise ValueError("rows are missing")
            mean, rounded, energy = (total.pop(name).view(width).div_(tokens) for name in VECTORS)
        except (KeyError, RuntimeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise self._damaged(error) from error
        hessian = total[_HESSIAN].div_(tokens)
        for start, stop in panels(width):
            hessian[:stop, start:stop] = hessian[start:stop, :stop].mT.clone()
        return SecondMoments(hessian, None, energy, mean, rounded, tokens, self._load_residual)

    def _load_residual(self) -> torch.Tensor:
        """Return the mean of ``(x - xq) xq^T`` over all parts, float32 [K, K] on the CPU.

        Raises:
            CalibrationError: a part's file is missing or damaged.
        """
        total = {RESIDUAL: torch.zeros(self.in_features, self.in_features)}
        try:
            for part in self.parts:
                part.add_to(total, (RESIDUAL,))
        except (KeyError, RuntimeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise self._damaged(error) from error
        return total[RESIDUAL].div_(self.tokens)

    def _damaged(self, error: Exception) -> CalibrationError:
        width = self.in_features
        return CalibrationError(
            f"the Hessian files of an input of width {width} are damaged: {error}. Calibrate again"
        )


def _add(total: dict[str, torch.Tensor], name: str, tensor: torch.Tensor) -> None:
    """Add stored sums to their total; a band of the Hessian of any height to its rows."""
    if name.startswith(f"{_HESSIAN}."):
        rows, stop = tensor.shape
        total[_HESSIAN][stop - rows : stop, :stop] += tensor
        total[_ROWS][stop - rows : stop] += 1
    elif name in total:  # in bands: adding another dtype makes a copy in float32
        if tensor.shape != total[name].shape:
            raise ValueError(f"{name} has the shape {list(tensor.shape)}")
        for band, part in zip(total[name].split(_PANEL), tensor.split(_PANEL), strict=True):
            band += part
    else:
        total[name] = tensor.to(torch.float32, copy=True)
