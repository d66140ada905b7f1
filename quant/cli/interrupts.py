"""Interrupts by the user or the system, none of which may get lost."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, ClassVar, NoReturn

# Also that the terminal was closed. Each system lacks one of these.
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


class Interrupts:
    """Turns signals to stop into KeyboardInterrupt, so that unfinished files are removed.

    Attributes:
        came: whether one came since the last `Interrupts` began.
    """

    came: ClassVar[bool] = False
    _number: ClassVar[int] = signal.SIGINT

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    @classmethod
    def raise_if_lost(cls) -> None:
        """Raise KeyboardInterrupt if one came before and a library has swallowed it."""
        if cls.came:
            raise KeyboardInterrupt(cls._number)

    def __enter__(self) -> Interrupts:
        Interrupts.came = False
        for number in (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # ignored in the background
                self._before[number] = signal.signal(number, self._stop)
        return self

    def ignore(self) -> None:
        """Let nothing disturb what is said at the end."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> NoReturn:
        Interrupts.came, Interrupts._number = True, number
        raise KeyboardInterrupt(number)
