"""The ``nvfp4`` command: arguments in, exit code out. The work is in ``commands``."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from .arguments import build_parser
from .errors import FoundryError, UsageError

OK, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 fine, 1 failed, 2 bad usage, 130 interrupted."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    _stop_cleanly_when_terminated()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console may lack letters of a prompt or name
            stream.reconfigure(errors="backslashreplace")
    try:
        # torch is imported here, after --help had its chance to be quick
        module = import_module(f".commands.{options.command}", __package__)
    except KeyboardInterrupt:
        return _fail(options, "interrupted", INTERRUPTED)

    command: Callable[[argparse.Namespace], int] = module.run
    try:
        return command(options)
    except UsageError as error:
        return _fail(options, f"{error}", BAD_USAGE)
    except FoundryError as error:
        return _fail(options, str(error), FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone
        return FAILED
    except OSError as error:
        return _fail(options, str(error), FAILED)
    except KeyboardInterrupt:
        return _fail(options, "interrupted; no unfinished file was left", INTERRUPTED)


def _fail(options: argparse.Namespace, message: str, code: int) -> int:
    print(f"nvfp4 {options.command}: {message}", file=sys.stderr)
    if options.json:
        print(json.dumps({"ok": False, "error": message}))
    return code


def _stop_cleanly_when_terminated() -> None:
    """Turn SIGTERM into an exception, so that unfinished files are removed."""

    def stop(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


if __name__ == "__main__":
    sys.exit(main())
