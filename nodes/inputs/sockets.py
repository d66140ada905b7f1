"""The socket types of the pack."""

from comfy_api.latest import io

#: A `quant.planning.Recipe`.
RecipeSocket = io.Custom("NVFP4_RECIPE")
#: A `quant.planning.Plan`.
PlanSocket = io.Custom("NVFP4_PLAN")
#: A `nodes.sessions.CalibrationSession`: live, gathers while the observed MODEL samples.
CalibrationSocket = io.Custom("NVFP4_CALIBRATION")
#: A `quant.calibration.CalibrationStatistics`: immutable.
StatisticsSocket = io.Custom("NVFP4_STATISTICS")
#: A `quant.convert.QuantizedModel`: a checkpoint in memory.
CheckpointSocket = io.Custom("NVFP4_CHECKPOINT")
#: A `quant.calibration.sensitivity.Sensitivity`: immutable.
SensitivitySocket = io.Custom("NVFP4_SENSITIVITY")
#: A `nodes.probed_model.ProbeSession`: live, gathers while the probed MODEL samples.
ProbeSocket = io.Custom("NVFP4_PROBE")

CATEGORY = "NVFP4 Foundry"
