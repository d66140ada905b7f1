"""Notes and warnings as messages."""

from __future__ import annotations

from nvfp4_foundry.quant.reports.messages import Message, messages_of


def test_a_note_that_warns_is_a_warning() -> None:
    made = messages_of(["saved as x", "warning: look here"], ["never observed"])
    assert made == (
        Message("note", "saved as x"),
        Message("warning", "look here"),
        Message("warning", "never observed"),
    )
    assert str(made[1]) == "warning: look here"
