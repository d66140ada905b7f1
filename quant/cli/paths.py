"""The files that a command reads and writes. Their types keep an output from replacing an input."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from pathlib import Path

from ..errors import FileError, UsageError


class InputPath(str):
    """Something to read: a file, a folder, or ``hf://owner/repo/file``.

    Any other argument that names something to read has a property ``inputs`` as this has.
    """

    __slots__ = ()

    @property
    def path(self) -> Path:
        """The path on this machine. Of a place on the Hub it exists nowhere."""
        return Path(self)

    @property
    def inputs(self) -> tuple[InputPath, ...]:
        """What the argument names to read."""
        return (self,)


class MergedPath(InputPath):
    """An input that is read in full before the output is written, so the output may replace it."""

    __slots__ = ()


class OutputPath(str):
    """A file to write."""

    __slots__ = ()

    @property
    def path(self) -> Path:
        """The path on this machine."""
        return Path(self)


class OwnOutputPath(OutputPath):
    """A file to write that may replace one that this tool wrote. Whoever writes it checks that."""

    __slots__ = ()


def output_ending_in(*suffixes: str) -> Callable[[str], OutputPath]:
    """Return the type of an argument that names a file to write with one of these suffixes."""

    def parse(text: str) -> OutputPath:
        if Path(text).suffix not in suffixes:
            raise argparse.ArgumentTypeError(f"{text}: the name must end in {', '.join(suffixes)}")
        return OutputPath(text)

    return parse


def inputs_of(options: argparse.Namespace) -> list[InputPath]:
    """Return everything that a command's arguments say to read."""
    return [path for value in _values(options) for path in getattr(value, "inputs", ())]


def outputs_of(options: argparse.Namespace) -> list[OutputPath]:
    """Return the files that a command's arguments say to write."""
    return [value for value in _values(options) if isinstance(value, OutputPath)]


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse outputs, before the work, that would replace something or cannot be written.

    Raises:
        UsageError: an output is an input or another output.
        FileError: an output cannot be written, or exists and ``--overwrite`` is not given; or an
            input is a device, a named pipe or a socket.
    """
    from ..files.target import names_one_file, require_ordinary
    from ..files.write import check_target

    inputs = inputs_of(options)
    for given in inputs:
        if "://" not in given:  # a place on the Hub
            require_ordinary(given)
    require_not_read(options, (p.path for p in inputs if not isinstance(p, MergedPath)))
    outputs = outputs_of(options)
    for first, second in combinations(outputs, 2):
        if names_one_file(first.path, second.path):
            raise UsageError(f"{second} is named for two outputs; give each a name of its own")
    for output in outputs:
        may_exist = isinstance(output, OwnOutputPath) or getattr(options, "overwrite", False)
        if not may_exist and output.path.is_file():
            raise FileError(f"{output} exists; use --overwrite to replace it")
        check_target(output.path, overwrite=may_exist)


def require_not_read(options: argparse.Namespace, files: Iterable[Path]) -> None:
    """Refuse outputs that are among the files that are read.

    Called once more when a source is open: only then are the files of a folder or an index known.

    Raises:
        UsageError: names the output.
    """
    existing = [file for file in files if file.exists()]
    for output in outputs_of(options):
        if output.path.exists() and any(output.path.samefile(file) for file in existing):
            raise UsageError(f"{output} is one of the input files; choose another output name")


def _values(options: argparse.Namespace) -> Iterator[object]:
    """Yield the value of every argument; those of one that takes several, one by one."""
    for value in vars(options).values():
        yield from value if isinstance(value, (list, tuple)) else (value,)
