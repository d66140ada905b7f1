"""Which ranks a command runs on: this process alone, unless torchrun started several."""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from ..errors import RankError, UsageError
from ..ranks.alone import ALONE, Ranks
from ..ranks.place import place_here
from .interrupts import Interrupts

_HEAD_START_SECONDS = 2.0


def allow_ranks(parser: argparse.ArgumentParser) -> None:
    """Say of a command that it shares its work with other ranks."""
    parser.set_defaults(shares_work=True)


def chosen_ranks(options: argparse.Namespace) -> Ranks:
    """Return the ranks that ``torchrun`` started.

    Raises:
        UsageError: the command cannot share its work, or not with this option.
    """
    place = place_here()
    if place is None:
        return ALONE
    if not getattr(options, "shares_work", False):
        raise UsageError(
            "this command does not share its work with other ranks; start it without torchrun"
        )
    from ..ranks.group import RankGroup

    return RankGroup(place, before_waiting=Interrupts.raise_if_lost)


def remove_what_dead_ranks_left(options: argparse.Namespace) -> None:
    """Delete the unfinished file of a first rank that was killed before it told its name.

    Only that of a dead process of this machine; see `remove_leftovers`.
    """
    if options.ranks.size > 1:
        from ..files.partial import remove_leftovers
        from .paths import outputs_of

        for output in outputs_of(options):
            remove_leftovers(output.path)


@contextmanager
def one_voice() -> Iterator[None]:
    """Drop what this rank writes while all ranks of a machine find the same: wrong usage, help."""
    if speaks_before_meeting():
        yield
        return
    nowhere = io.StringIO()
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    except SystemExit:
        let_others_speak()
        raise


def let_others_speak() -> None:
    """Wait a little: once a rank has ended, torchrun stops those that have yet to report why."""
    time.sleep(_HEAD_START_SECONDS)


def speaks_before_meeting() -> bool:
    """Whether this rank reports what every rank of its machine finds."""
    try:
        place = place_here()
    except RankError:
        return True
    return place is None or place.local_rank == 0
