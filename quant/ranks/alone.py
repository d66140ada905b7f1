"""What shared work asks of its ranks. This is the answer of a process that is alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import Self

from ..progress import OnProgress
from .share import shares

if TYPE_CHECKING:
    import torch

_T = TypeVar("_T")


class Ranks:
    """The ranks that share a work: here a single one. All ranks make the same calls in turn.

    Attributes:
        rank: the number of this one, from 0.
        size: how many there are.
        label: how this rank introduces its messages; empty if it is alone.
        speaks: whether a failure is told by this rank, and not by another on the same machine.
    """

    rank: int = 0
    size: int = 1
    label: str = ""
    speaks: bool = True

    def __enter__(self) -> Self:
        """Meet the others."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait until all have finished, or tell them what went wrong."""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what exists once: headers, reports, standard output."""
        return self.rank == 0

    def share(self, costs: Sequence[float]) -> list[int]:
        """Return which pieces of work this rank does, as indices into their ``costs``."""
        return shares(costs, self.size)[self.rank]

    def gather(self, what: str, mine: Any) -> list[Any]:
        """Return the values of all ranks by rank, when every one has given its own.

        ``mine`` must be JSON values; ``what`` names them for messages.

        Raises:
            RankError: another rank failed or is lost.
        """
        return [mine]

    def by_first(self, what: str, make: Callable[[], _T]) -> _T:
        """Let the first rank make a value (JSON), for all; the others wait for it."""
        return self.gather(what, make() if self.is_first else None)[0]

    def device(self, device: torch.device) -> torch.device:
        """Return where this rank computes if all are to use such a device: a GPU of its own."""
        return device

    def counted(self, on_progress: OnProgress | None) -> OnProgress | None:
        """Return a callback for this rank's part; the given one hears of all parts together.

        In a group, it raises `RankError` once another rank has failed.
        """
        return on_progress


#: The single rank of a process that was not started as one of several.
ALONE = Ranks()
