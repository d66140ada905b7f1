"""What a report says beside its numbers: notes and warnings, one message each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["note", "warning", "error"]
_WARNING = "warning: "


@dataclass(frozen=True)
class Message:
    """One note, warning or error. As text: ``warning: never observed: blocks.3.q``."""

    level: Level
    text: str

    def __str__(self) -> str:
        """Return the line of a text report."""
        return f"{self.level}: {self.text}"


def messages_of(notes: Iterable[str] = (), warnings: Iterable[str] = ()) -> tuple[Message, ...]:
    """Return notes and then warnings as messages; a note may say itself that it is a warning."""
    return (
        *(_of_note(text) for text in notes),
        *(Message("warning", text) for text in warnings),
    )


def _of_note(text: str) -> Message:
    rest = text.removeprefix(_WARNING)
    return Message("note" if rest == text else "warning", rest)
