"""How long work tells whoever waits for it how far it is."""

from __future__ import annotations

from collections.abc import Callable

#: Called with what is done, what there is in all (bytes, layers or runs, as the function says),
#: and the name of the current item. It may raise to stop the work.
OnProgress = Callable[[int, int, str], None]
