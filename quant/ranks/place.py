"""Which rank this process is, as ``torchrun`` says in the environment. Imports no torch."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import RankError


@dataclass(frozen=True)
class Place:
    """One of ``size`` ranks, and the number ``local_rank`` of those on its ``machine``."""

    rank: int
    size: int
    local_rank: int
    machine: str


def place_here(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Return the place of this process; None if it is alone.

    Raises:
        RankError: the variables are not whole numbers that fit together.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local_rank = int(environment.get("LOCAL_RANK", rank))
    except ValueError as error:
        raise RankError(
            f"RANK, LOCAL_RANK and WORLD_SIZE must be whole numbers ({error}); start the ranks "
            "with torchrun"
        ) from error
    if not 0 <= rank < size or local_rank < 0:
        raise RankError(f"there is no rank {rank} of {size}; start the ranks with torchrun")
    if size == 1:
        return None
    # Two groups of one torchrun on the same host have consoles of their own, as two machines have.
    return Place(
        rank, size, local_rank, environment.get("GROUP_RANK", "") + "@" + socket.gethostname()
    )
