"""The extension class that lists the nodes for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .calibration.calibrate import Calibrate, CalibrationResult
from .calibration.calibration_prompts import CalibrationPrompts
from .calibration.export_input_scales import ExportInputScales
from .calibration.import_activation_log import ImportActivationLog
from .calibration.load_calibration import LoadCalibration, MergeCalibrations
from .checkpoint.compare_samples import CompareSamples
from .checkpoint.inspect_checkpoint import InspectCheckpoint
from .checkpoint.rescale_checkpoint import RescaleCheckpoint
from .conversion.quantize_file import QuantizeFile
from .conversion.quantize_model import QuantizeModel
from .conversion.save_checkpoint import SaveCheckpoint
from .conversion.text_encoders import PlanTextEncoder, QuantizeTextEncoder
from .derive.auto_mix import AutoMix
from .derive.from_calibration import RecipeFromCalibration
from .derive.from_checkpoint import RecipeFromCheckpoint
from .derive.from_gguf import RecipeFromGguf
from .derive.from_sensitivity import RecipeFromSensitivity
from .planning.edit_recipe import EditRecipe
from .planning.load_recipe import LoadRecipe
from .planning.plan_layers import PlanLayers
from .planning.save_recipe import SaveRecipe
from .planning.select_preset import SelectPreset
from .sensitivity.load_sensitivity import LoadSensitivity
from .sensitivity.measure_sensitivity import MeasureSensitivity
from .sensitivity.probe import ProbeLatentShift, ProbeResult
from .sources.load_source_model import LoadSourceModel


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
            ProbeLatentShift,
            ProbeResult,
            LoadSensitivity,
            AutoMix,
            QuantizeModel,
            PlanTextEncoder,
            QuantizeTextEncoder,
            SaveCheckpoint,
            QuantizeFile,
            InspectCheckpoint,
            RescaleCheckpoint,
            CompareSamples,
        ]
