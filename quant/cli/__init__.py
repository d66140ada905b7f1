"""The command line: a file per command, with its arguments and its work.

Heavy libraries are imported inside the functions that do the work, so that ``--help`` and wrong
usage are answered at once.
"""

from .main import main

__all__ = ["main"]
