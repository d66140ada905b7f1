"""Which ranks a command runs on: this process alone, unless torchrun started several."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from ..errors import RankError, UsageError
from ..ranks.alone import ALONE, Ranks
from ..ranks.place import place_here


def allow_ranks(parser: argparse.ArgumentParser) -> None:
    """Say of a command that it shares its work with other ranks."""
    parser.set_defaults(shares_work=True)


def chosen_ranks(options: argparse.Namespace) -> Ranks:
    """Return the ranks that ``torchrun`` started.

    Raises:
        UsageError: the command cannot share its work.
    """
    place = place_here()
    if place is None:
        return ALONE
    if not getattr(options, "shares_work", False):
        raise UsageError(
            "this command does not share its work with other ranks; start it without torchrun"
        )
    from ..ranks.group import RankGroup

    return RankGroup(place)


@contextmanager
def one_voice() -> Iterator[None]:
    """Drop what this rank writes while all ranks of a machine find the same: wrong usage, help."""
    if speaks_before_meeting():
        yield
        return
    nowhere = io.StringIO()
    with redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def speaks_before_meeting() -> bool:
    """Whether this rank reports what every rank of its machine finds."""
    try:
        place = place_here()
    except RankError:
        return True
    return place is None or place.local_rank == 0
