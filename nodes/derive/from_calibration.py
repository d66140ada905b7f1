"""Recipes changed where a calibration advises against a format."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.calibration import CalibrationStatistics, load_statistics
from ...quant.derive import DerivedRecipe, recipe_from_statistics
from ...quant.errors import CalibrationError
from ...quant.formats import FORMATS
from ...quant.planning import Recipe, get_preset
from ..files.artefacts import CALIBRATIONS

#: The choice that stands for the socket instead of a saved calibration.
CONNECTED = "the connected calibration"


def inputs() -> list[io.Input]:
    """Return the widgets of this source."""
    return [
        io.Combo.Input(
            "calibration",
            options=[CONNECTED, *CALIBRATIONS.names()],
            default=CONNECTED,
            tooltip="A calibration in output/nvfp4_foundry/calibrations, or the connected one.",
        ),
        io.Float.Input(
            "max_input_error",
            default=12.0,
            min=0.1,
            max=99.0,
            step=0.5,
            tooltip="The largest error of a layer's input when it is rounded, in %. Layers above "
            "it get the 'careful' format. 9 to 10 is usual for NVFP4.",
        ),
        io.Float.Input(
            "max_spread",
            default=4.0,
            min=1.0,
            max=1e6,
            step=0.5,
            tooltip="The largest factor between the input ranges of different runs. Layers above "
            "it get the 'careful' format. A good value is the headroom of the recipe, which is the "
            "room that a static scale leaves.",
        ),
        io.Combo.Input(
            "careful",
            options=list(FORMATS),
            default="nvfp4_w4a16",
            tooltip="The format for layers above a limit. nvfp4_w4a16 is as small as NVFP4 and "
            "does not round inputs.",
        ),
        io.Combo.Input(
            "unseen",
            options=list(FORMATS),
            default="keep",
            tooltip="The format for layers that were not observed, or only partly.",
        ),
    ]


def modified(name: str) -> list[float]:
    """Return when the chosen calibration last changed, for ``fingerprint_inputs``."""
    return [] if name == CONNECTED else [CALIBRATIONS.modified(name)]


def derived(
    choice: dict[str, Any],
    recipe: Recipe | None = None,
    statistics: CalibrationStatistics | None = None,
) -> DerivedRecipe:
    """Return the recipe for the values of `inputs`, and notes.

    Raises:
        CalibrationError: no calibration is connected, and none is chosen.
    """
    if choice["calibration"] != CONNECTED:
        statistics = load_statistics(CALIBRATIONS.path(choice["calibration"]))
    if statistics is None:
        raise CalibrationError("connect a calibration to Load Recipe, or choose a saved one")
    return recipe_from_statistics(
        statistics,
        recipe or get_preset("smart").build(),
        choice["max_input_error"] / 100,
        choice["max_spread"],
        choice["careful"],
        choice["unseen"],
    )
