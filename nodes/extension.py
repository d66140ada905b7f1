"""The list of nodes ComfyUI gets."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .calibration import (
    Calibrate,
    CalibrationPrompts,
    CalibrationResult,
    LoadCalibration,
    MergeCalibrations,
)
from .compare import Compare
from .inspect import InspectCheckpoint
from .interop import ExportInputScales, ImportActivationLog, RescaleCheckpoint
from .latent_probe import ProbeModel, ProbeResult
from .mix import AutoMix
from .quantize import Quantize, QuantizeFile, SaveCheckpoint
from .recipe_editing import EditRecipe, SaveRecipe
from .recipe_from_gguf import RecipeFromGguf
from .recipe_sources import (
    RecipeFromCalibration,
    RecipeFromCheckpoint,
    RecipeFromSensitivity,
)
from .recipes import LoadRecipe, PlanLayers, SelectPreset
from .sensitivity import LoadSensitivity, MeasureSensitivity
from .sources import LoadSourceModel
from .text_encoders import PlanTextEncoder, QuantizeTextEncoder


class FoundryExtension(ComfyExtension):
    """NVFP4 Foundry."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return all nodes, in the order a user meets them."""
        return [
            LoadSourceModel,
            SelectPreset,
            LoadRecipe,
            RecipeFromGguf,
            RecipeFromCheckpoint,
            RecipeFromCalibration,
            RecipeFromSensitivity,
            EditRecipe,
            SaveRecipe,
            PlanLayers,
            CalibrationPrompts,
            Calibrate,
            CalibrationResult,
            LoadCalibration,
            MergeCalibrations,
            ImportActivationLog,
            ExportInputScales,
            MeasureSensitivity,
            ProbeModel,
            ProbeResult,
            LoadSensitivity,
            AutoMix,
            Quantize,
            PlanTextEncoder,
            QuantizeTextEncoder,
            SaveCheckpoint,
            QuantizeFile,
            InspectCheckpoint,
            RescaleCheckpoint,
            Compare,
        ]
