"""The parsers of ``nvfp4`` and its commands. Imports no torch, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from .. import VERSION
from ..text import printable

#: Where the commands of a parser are added.
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

#: Does the work of a command; returns the exit code.
Run = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Reports wrong arguments as JSON too when ``--json`` is among them."""

    _as_json = False

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - its overloads
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Parse as the base class does, but report unknown arguments with this parser's usage."""
        self._as_json = "--json" in (sys.argv[1:] if args is None else args)
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{_instead(unknown)}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        if self._as_json:
            print(json.dumps({"ok": False, "error": message}))
        super().error(printable(message))


def _instead(unknown: list[str]) -> str:
    """Return what to write instead of an option of earlier versions; empty if there is none."""
    if any(argument.startswith("--headroom") for argument in unknown):
        return "; the headroom belongs to the policy: --input-scale 'amax*2'"
    return ""


def main_parser() -> tuple[Parser, Commands]:
    """Return the parser of ``nvfp4`` and where its commands are added."""
    parser = Parser(
        prog="nvfp4",
        description="Turn diffusion models into calibrated, mixed-precision NVFP4 checkpoints.",
        epilog="'nvfp4 COMMAND --help' shows the options of a command and an example.",
    )
    parser.add_argument("--version", action="version", version=f"nvfp4-foundry {VERSION}")
    return parser, _add_choice(parser, "command")


def add_group(commands: Commands, name: str, summary: str) -> Commands:
    """Add a command that only has subcommands; returns where they are added."""
    parser = commands.add_parser(name, help=summary, description=summary)
    return _add_choice(parser, "subcommand")


def add_command(
    commands: Commands, name: str, run: Run, summary: str, example: str, details: str = ""
) -> Parser:
    """Add a command or subcommand; returns its parser.

    Args:
        commands: where to add it.
        name: of the command, without those of its groups.
        run: does its work. The namespace also has ``prog``, the full name of the command.
        summary: one sentence.
        example: one command per line.
        details: what ``--help`` says after the summary.
    """
    title = "examples" if "\n" in example else "example"
    parser = commands.add_parser(
        name,
        help=summary,
        description="\n\n".join(filter(None, (summary, details))),
        epilog=f"{title}:\n  " + example.replace("\n", "\n  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, prog=parser.prog)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_choice(parser: Parser, what: str) -> Commands:
    """Let a parser choose among commands; it is an error to give none."""
    commands = parser.add_subparsers(metavar=what.upper())

    def ask(options: argparse.Namespace) -> NoReturn:
        parser.error(f"give a {what}: {', '.join(commands.choices)}")

    parser.set_defaults(run=ask, prog=parser.prog)
    return commands
