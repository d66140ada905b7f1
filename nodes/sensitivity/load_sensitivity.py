"""The node that loads a saved sensitivity."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.sensitivity.artefact import load_sensitivity
from ..files.artefacts import SENSITIVITIES
from ..inputs.saved import saved_input
from ..inputs.sockets import CATEGORY
from .result import sensitivity_outputs, sensitivity_result


class LoadSensitivity(io.ComfyNode):
    """Load a saved sensitivity."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryLoadSensitivity",
            display_name="Load Sensitivity",
            category=CATEGORY,
            description="Loads a sensitivity that Measure Sensitivity or Probe Result saved.",
            search_aliases=["nvfp4 sensitivity", "load sensitivity", "heat map"],
            inputs=[
                saved_input(SENSITIVITIES),
            ],
            outputs=sensitivity_outputs(),
        )

    @classmethod
    def validate_inputs(cls, name: str | None) -> bool | str:
        """Report a missing file before the queue starts."""
        return SENSITIVITIES.check_saved(name)

    @classmethod
    def fingerprint_inputs(cls, name: str) -> float:
        """Return when the file changed, so that a changed file is loaded again."""
        return SENSITIVITIES.modified(name)

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        """Return the sensitivity, its report and its heat map."""
        return sensitivity_result(load_sensitivity(SENSITIVITIES.path(name)), [])
