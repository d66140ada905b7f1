"""The extension class that lists the nodes for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .calibration.calibrate import Calibrate
from .calibration.calibration_prompts import CalibrationPrompts
from .calibration.calibration_result import CalibrationResult
from .calibration.export_input_scales import ExportInputScales
from .calibration.import_activation_log import ImportActivationLog
from .calibration.load_calibration import LoadCalibration
from .calibration.merge_calibrations import MergeCalibrations
from .checkpoint.compare_samples import CompareSamples
from .checkpoint.inspect_checkpoint import InspectCheckpoint
from .checkpoint.rescale_checkpoint import RescaleCheckpoint
from .conversion.quantize_file import QuantizeFile
from .conversion.quantize_model import QuantizeModel
from .conversion.save_checkpoint import SaveCheckpoint
from .derive.auto_mix import AutoMix
from .planning.edit_recipe import EditRecipe
from .planning.load_recipe import LoadRecipe
from .planning.plan_layers import PlanLayers
from .planning.save_recipe import SaveRecipe
from .planning.select_preset import SelectPreset
from .reports.routes import add_routes
from .sensitivity.measure_sensitivity import MeasureSensitivity
from .sensitivity.probe_latent_shift import ProbeLatentShift
from .sensitivity.probe_result import ProbeResult
from .sources.load_source_model import LoadSourceModel


class FoundryExtension(ComfyExtension):
    """The nodes of NVFP4 Foundry."""

    async def on_load(self) -> None:
        """Add the routes of the pack to ComfyUI's server."""
        add_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return all nodes, in the order in which a user needs them."""
        return [
            LoadSourceModel,
            SelectPreset,
            PlanLayers,
            QuantizeModel,
            SaveCheckpoint,
            QuantizeFile,
            CalibrationPrompts,
            Calibrate,
            CalibrationResult,
            LoadCalibration,
            MeasureSensitivity,
            ProbeLatentShift,
            ProbeResult,
            AutoMix,
            CompareSamples,
            LoadRecipe,
            EditRecipe,
            SaveRecipe,
            InspectCheckpoint,
            RescaleCheckpoint,
            ImportActivationLog,
            ExportInputScales,
            MergeCalibrations,
        ]
