"""Prompts to calibrate with, given one after the other."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..files import decks, folders
from ..inputs.sockets import CATEGORY


class CalibrationPrompts(io.ComfyNode):
    """A deck of prompts, given as a list: one queue run samples them all."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryCalibrationPrompts",
            display_name="Calibration Prompts",
            category=CATEGORY,
            description=(
                "Gives prompts one after the other to the nodes it is connected to, so that one "
                "queue run samples them all. Prompts like your own calibrate best."
            ),
            search_aliases=["prompt list", "prompt deck", "nvfp4 prompts"],
            inputs=[
                io.DynamicCombo.Input(
                    "deck",
                    options=[
                        *(io.DynamicCombo.Option(f"built-in: {n}", []) for n in decks.deck_names()),
                        io.DynamicCombo.Option(
                            "typed",
                            [
                                io.String.Input(
                                    "text",
                                    multiline=True,
                                    default="",
                                    placeholder="one prompt a line",
                                    tooltip="One prompt a line; lines starting with # are skipped.",
                                )
                            ],
                        ),
                        io.DynamicCombo.Option(
                            "file",
                            [
                                io.Combo.Input(
                                    "name",
                                    options=folders.prompt_files(),
                                    tooltip="A .txt file in ComfyUI's input folder, one prompt "
                                    "a line.",
                                )
                            ],
                        ),
                    ],
                    tooltip="Where the prompts come from.",
                ),
                io.Int.Input(
                    "limit",
                    default=4,
                    min=1,
                    max=1000,
                    tooltip="How many prompts of the deck to use, from the top. Four to eight "
                    "different ones usually do.",
                ),
            ],
            outputs=[io.String.Output(display_name="prompts", is_output_list=True)],
        )

    @classmethod
    def fingerprint_inputs(cls, deck: Any = None, limit: int | None = None) -> float:
        """Read again when the file changed."""
        name = deck.get("name") if isinstance(deck, dict) else None
        return folders.prompt_path(name).stat().st_mtime if name else 0.0

    @classmethod
    def execute(cls, limit: int, deck: dict[str, Any] | None = None) -> io.NodeOutput:
        """Read the deck."""
        if deck is None:  # what ComfyUI makes of a choice it does not know
            raise ValueError("this workflow names a deck that is not installed; choose another")
        choice = deck["deck"]
        if choice == "typed":
            prompts = decks.parse_deck(deck["text"], "the typed deck")
        elif choice == "file":
            path = folders.prompt_path(deck["name"])
            prompts = decks.read_deck(path)
        else:
            prompts = decks.built_in_deck(choice.removeprefix("built-in: "))
        return io.NodeOutput(prompts[:limit])
