"""The callback that reports the progress of long work."""

from __future__ import annotations

from collections.abc import Callable

#: Called with the amount done, the total amount (in bytes, layers or runs, depending on the
#: function) and the name of the current item. It may raise an exception to stop the work.
OnProgress = Callable[[int, int, str], None]
