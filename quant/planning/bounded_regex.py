"""Regular expressions of recipes, which are shared files, matched within a bound of time.

Python's own module may need longer than the age of the universe for a short pattern such as
``(.*.*.*.*.*.*)!``, and nothing can stop it. The ``regex`` package, which ComfyUI has through
transformers, takes the same patterns and a time limit.
"""

from __future__ import annotations

import time
from functools import lru_cache

import regex

from ..errors import RecipeError

LONGEST_PATTERN = 500
# A usual match takes a microsecond. The limits, in seconds, are for one match, and for slow ones in
# a row; a quick one begins a new row.
_ONE_MATCH, _ALL_MATCHES, _SLOW = 0.2, 1.0, 0.01


class BoundedRegex:
    """A compiled pattern that may take a limited time."""

    def __init__(self, pattern: str) -> None:
        """Compile a pattern.

        Raises:
            ValueError: it is not a regular expression, or too long.
        """
        if len(pattern) > LONGEST_PATTERN:
            raise ValueError(
                f"a regular expression has at most {LONGEST_PATTERN} characters, not {len(pattern)}"
            )
        try:
            self._compiled = regex.compile(pattern)
        except (regex.error, RecursionError, OverflowError, MemoryError) as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        self._pattern = pattern
        self._left = _ALL_MATCHES

    def matches(self, name: str) -> bool:
        """Whether the pattern matches a whole name.

        Raises:
            RecipeError: it takes too long.
        """
        began = time.perf_counter()
        try:
            found = self._compiled.fullmatch(name, timeout=_ONE_MATCH) is not None
        except TimeoutError:
            raise self._too_slow(name) from None
        took = time.perf_counter() - began
        self._left = self._left - took if took > _SLOW else _ALL_MATCHES
        if self._left <= 0:
            raise self._too_slow(name)
        return found

    def _too_slow(self, name: str) -> RecipeError:
        return RecipeError(
            f"the regular expression {self._pattern!r} takes too long to match {name[:80]!r}; "
            "write it with fewer repetitions (* and +) in a row"
        )


@lru_cache(maxsize=4096)
def bounded(pattern: str) -> BoundedRegex:
    """Return a compiled pattern, the same object for the same text.

    Raises:
        ValueError: it is not a regular expression, or too long.
    """
    return BoundedRegex(pattern)
