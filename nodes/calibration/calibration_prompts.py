"""The node that feeds several prompts to a calibration."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..files import decks, folders
from ..foundry_node import FoundryNode
from ..inputs.sockets import CALIBRATE
from ..prompts.validation import constant_inputs
from ..reports.errors import refused

_FILE = "file"
_MOST_PROMPTS = 1000


class CalibrationPrompts(FoundryNode):
    """Output a deck of prompts as a list, so that one queue run samples them all."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryCalibrationPrompts",
            display_name="Calibration Prompts",
            category=CALIBRATE,
            description=(
                "Outputs a list of prompts. Connected nodes run once per prompt, so one queue run "
                "samples them all. Prompts like your own calibrate best."
            ),
            search_aliases=["prompt list", "prompt deck", "batch prompts", "nvfp4 prompts"],
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
                                    placeholder="one prompt per line",
                                    tooltip="One prompt per line. Lines that start with # are "
                                    "skipped.",
                                )
                            ],
                        ),
                        io.DynamicCombo.Option(
                            _FILE,
                            [
                                io.Combo.Input(
                                    "name",
                                    options=folders.prompt_files(),
                                    tooltip="A .txt file in ComfyUI's input folder, with one "
                                    "prompt per line.",
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
                    max=_MOST_PROMPTS,
                    tooltip="How many prompts of the deck to use, from the top. Four to eight "
                    "different prompts are usually enough.",
                ),
            ],
            outputs=[io.String.Output(display_name="prompts", is_output_list=True)],
        )

    @classmethod
    def validate_inputs(cls, limit: int | None, *, deck: Any = None) -> bool | str:
        """Report a missing file or a wrong number before the queue starts."""
        inputs = constant_inputs()
        # ComfyUI does not check the range of an input that is checked here
        if limit is not None and not 1 <= limit <= _MOST_PROMPTS:
            return refused(f"limit is {limit}; it must be 1 to {_MOST_PROMPTS}")
        if inputs.get("deck") == _FILE and "deck.name" in inputs:
            try:
                folders.input_path(inputs["deck.name"])
            except FileNotFoundError as error:
                return refused(str(error))
        return True

    @classmethod
    def fingerprint_inputs(cls, deck: Any = None, limit: int | None = None) -> float:
        """Return when the file changed, so that a changed file is read again."""
        name = deck.get("name") if isinstance(deck, dict) else None
        return folders.input_path(name).stat().st_mtime if name else 0.0

    @classmethod
    def execute(cls, limit: int, deck: dict[str, Any] | None = None) -> io.NodeOutput:
        """Return the first prompts of the deck."""
        if deck is None:  # ComfyUI turns an unknown choice into None
            raise ValueError(
                "this workflow uses a deck of prompts that is not installed; choose another deck"
            )
        choice = deck["deck"]
        if choice == "typed":
            prompts = decks.parse_deck(deck["text"], "the typed deck of prompts")
        elif choice == _FILE:
            path = folders.input_path(deck["name"])
            prompts = decks.read_deck(path)
        else:
            prompts = decks.built_in_deck(choice.removeprefix("built-in: "))
        return io.NodeOutput(prompts[:limit])
