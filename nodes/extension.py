"""The extension class that lists the nodes for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .calibration.activation_log import ImportActivationLog
from .calibration.calibrate import Calibrate, CalibrationResult
from .calibration.export_scales import ExportInputScales
from .calibration.prompts import CalibrationPrompts
from .calibration.stored import LoadCalibration, MergeCalibrations
from .checkpoint.compare_samples import Compare
from .checkpoint.inspect import InspectCheckpoint
from .checkpoint.rescale import RescaleCheckpoint
from .conversion.quantize import Quantize
from .conversion.quantize_file import QuantizeFile
from .conversion.save import SaveCheckpoint
from .conversion.text_encoders import PlanTextEncoder, QuantizeTextEncoder
from .derive.from_calibration import RecipeFromCalibration
from .derive.from_checkpoint import RecipeFromCheckpoint
from .derive.from_gguf import RecipeFromGguf
from .derive.from_sensitivity import RecipeFromSensitivity
from .derive.mix import AutoMix
from .planning.edit_recipe import EditRecipe
from .planning.load_recipe import LoadRecipe
from .planning.plan_layers import PlanLayers
from .planning.save_recipe import SaveRecipe
from .planning.select_preset import SelectPreset
from .sensitivity.load import LoadSensitivity
from .sensitivity.measure import MeasureSensitivity
from .sensitivity.probe import ProbeModel, ProbeResult
from .sources.load_source import LoadSourceModel


class FoundryExtension(ComfyExtension):
    """The nodes of NVFP4 Foundry."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return all nodes, in the order in which a user needs them."""
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
