"""The list of nodes ComfyUI gets."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .calibration.calibration import (
    Calibrate,
    CalibrationPrompts,
    CalibrationResult,
    LoadCalibration,
    MergeCalibrations,
)
from .calibration.interop import ExportInputScales, ImportActivationLog, RescaleCheckpoint
from .checkpoint.compare_samples import Compare
from .checkpoint.inspect import InspectCheckpoint
from .conversion.quantize import Quantize, QuantizeFile, SaveCheckpoint
from .conversion.text_encoders import PlanTextEncoder, QuantizeTextEncoder
from .derive.from_gguf import RecipeFromGguf
from .derive.mix import AutoMix
from .derive.recipe_sources import (
    RecipeFromCalibration,
    RecipeFromCheckpoint,
    RecipeFromSensitivity,
)
from .planning.edit_recipe import EditRecipe, SaveRecipe
from .planning.recipes import LoadRecipe, PlanLayers, SelectPreset
from .sensitivity.measure import LoadSensitivity, MeasureSensitivity
from .sensitivity.probe import ProbeModel, ProbeResult
from .sources.load_source import LoadSourceModel


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
