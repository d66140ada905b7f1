"""The ``nvfp4`` command: arguments in, exit code out. Whatever happens ends in one line."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from .interrupts import Interrupts

if TYPE_CHECKING:
    from pathlib import Path

    from ..ranks.alone import Ranks
    from .parser import Parser

#: A module or package each, in the order of ``--help``.
COMMANDS = (
    "inspect", "plan", "quantize", "verify", "report", "compare", "rescale", "recipe", "stats",
    "sensitivity", "mix", "doctor", "demo",
)  # fmt: skip
OK, FAILED, BAD_USAGE, MISTAKE, INTERRUPTED = 0, 1, 2, 70, 130
#: Where mistakes of the program are reported.
REPORT_AT = "https://github.com/nvfp4-foundry/nvfp4-foundry/issues"
#: Set to anything, this variable shows where in the program a mistake happened.
SHOW_TRACEBACK = "NVFP4_TRACEBACK"
_LONGEST = 300


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0 fine, 1 failed, 2 wrong usage, 70 a mistake in the program, 130 interrupted.
    """
    # Before torch is imported: its idle threads must not spin on the cores that work on chunks.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    given = sys.argv[1:] if arguments is None else list(arguments)
    outcome = _Outcome(as_json="--json" in given)
    with Interrupts() as interrupts:
        try:
            return _run(given, outcome)
        except (Exception, KeyboardInterrupt) as error:
            interrupts.ignore()
            # a library may turn the interrupt into an error of its own
            if isinstance(error, KeyboardInterrupt):
                return outcome.interrupted()
            if interrupts.came and not outcome.is_of_other_rank(error):
                return outcome.interrupted()
            return outcome.failed(error)


def build_parser() -> Parser:
    """Return the parser of all commands."""
    from .parser import main_parser

    parser, commands = main_parser()
    for name in COMMANDS:
        import_module(f".{name}", __package__).add(commands)
    return parser


def _run(arguments: list[str], outcome: _Outcome) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console may lack letters of a prompt or name
            stream.reconfigure(errors="backslashreplace")
    from .paths import check_outputs
    from .ranks import chosen_ranks, one_voice, remove_what_dead_ranks_left

    with one_voice():
        options = build_parser().parse_args(arguments)
    outcome.command = options.prog
    outcome.as_json = getattr(options, "json", False)  # which may be abbreviated
    outcome.has_device = hasattr(options, "device")
    outcome.keeps_layers_of = options.target.path if getattr(options, "resume", False) else None

    options.ranks = chosen_ranks(options)
    outcome.ranks = options.ranks
    try:
        with options.ranks as ranks:
            ranks.by_first("outputs", lambda: check_outputs(options))
            return options.run(options)
    except BaseException:
        remove_what_dead_ranks_left(options)
        raise


class _Outcome:
    """Says how a command ended when it did not end well."""

    def __init__(self, *, as_json: bool) -> None:
        self.command = "nvfp4"
        self.has_device = False
        self.keeps_layers_of: Path | None = None
        self.as_json = as_json
        self.ranks: Ranks | None = None

    def interrupted(self) -> int:
        """Report an interruption."""
        kept = self._kept() or "no unfinished file was left"
        return self._report(f"interrupted; {kept}", INTERRUPTED)

    def _kept(self) -> str:
        """Return where finished layers are kept, or ""."""
        from ..files.resumable import describe_kept

        kept = describe_kept(self.keeps_layers_of) if self.keeps_layers_of else ""
        what_now = "; the same command goes on from them, or delete what you do not need"
        return kept and kept + what_now

    def failed(self, error: Exception) -> int:
        """Report an error; one that nobody foresaw with where its details are."""
        from ..errors import FoundryError, UsageError, is_out_of_memory

        if self.is_of_other_rank(error):
            told = "; ".join(filter(None, (str(error), self._kept())))
            return self._report(told, FAILED, label="")
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone
            return FAILED
        if is_out_of_memory(error):
            return self._report(self._out_of_memory(error), FAILED)
        if isinstance(error, UsageError):
            return self._report(str(error), BAD_USAGE)
        if isinstance(error, (FoundryError, OSError)):
            return self._report(str(error), FAILED)
        return self._report(_describe_mistake(error), MISTAKE)

    def _out_of_memory(self, error: Exception) -> str:
        if self.has_device and "cuda" in f"{type(error)} {error}".lower():
            return (
                "the GPU is out of memory; use --device cpu, or close other programs that use "
                "the GPU"
            )
        return "out of memory; close other programs, or add memory or swap space"

    def is_of_other_rank(self, error: BaseException) -> bool:
        """Whether the error only says that another rank failed."""
        from ..errors import OtherRankError

        return isinstance(error, OtherRankError)

    def _report(self, message: str, code: int, label: str | None = None) -> int:
        from ..text import printable
        from .ranks import let_others_speak, speaks_before_meeting

        if self.ranks is None and not speaks_before_meeting():
            let_others_speak()
            return code
        if self.ranks is not None and not self.ranks.speaks:
            return code
        message = (self.ranks.label if self.ranks and label is None else "") + message
        print(printable(f"{self.command}: {message}"), file=sys.stderr)
        if self.as_json:
            print(json.dumps({"ok": False, "error": message}))
        return code


def _describe_mistake(error: Exception) -> str:
    """Return what happened, where the details are, and where to report it."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        f"a mistake in NVFP4 Foundry: {text[:_LONGEST]}; no unfinished file was left. "
        f"{_keep_details(error)}; please report it with them at {REPORT_AT}"
    )


def _keep_details(error: Exception) -> str:
    """Write where in the program an error happened to a file, or show it if that is asked for."""
    import tempfile
    import traceback

    details = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if os.environ.get(SHOW_TRACEBACK):
        from ..text import printable

        print(printable(details), file=sys.stderr)
        return "The details are above"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="nvfp4-mistake-", suffix=".txt", encoding="utf-8", delete=False,
            errors="backslashreplace",
        ) as file:  # fmt: skip
            file.write(details)
    except OSError:
        return f"Set {SHOW_TRACEBACK}=1 to see the details"
    return f"The details are in {file.name}"
