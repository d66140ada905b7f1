"""Standard output for what the command says, not for what libraries let slip."""

from __future__ import annotations

import io
import os
import sys


def drop_output_of_libraries() -> None:
    """Let only Python write to standard output from now on, for the rest of the process.

    HiGHS prints now and then whatever it is told, which would sit in the midst of the JSON. Does
    nothing where ``sys.stdout`` is no longer the process's own.
    """
    try:
        is_ours = sys.stdout.fileno() == 1
    except (AttributeError, OSError, io.UnsupportedOperation):
        return
    if is_ours:
        sys.stdout.flush()
        encoding = sys.stdout.encoding
        sys.stdout = os.fdopen(os.dup(1), "w", encoding=encoding, errors="backslashreplace")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
