"""The socket types of the pack, and the menus of its nodes."""

from comfy_api.latest import io

#: A `quant.planning.Recipe`.
RecipeSocket = io.Custom("NVFP4_RECIPE")
#: A `quant.planning.Plan`.
PlanSocket = io.Custom("NVFP4_PLAN")
#: A `calibration.sessions.CalibrationSession`: it grows while the observed MODEL samples.
CalibrationSocket = io.Custom("NVFP4_CALIBRATION")
#: A `quant.calibration.CalibrationStatistics`: a finished calibration.
StatisticsSocket = io.Custom("NVFP4_STATISTICS")
#: A `conversion.promise.PromisedCheckpoint`: it is made when it is saved.
CheckpointSocket = io.Custom("NVFP4_CHECKPOINT")
#: A `quant.sensitivity.Sensitivity`: immutable.
SensitivitySocket = io.Custom("NVFP4_SENSITIVITY")
#: A `bridge.probed_model.ProbeSession`: it grows while the probed MODEL samples.
ProbeSocket = io.Custom("NVFP4_PROBE")

_PACK = "NVFP4 Foundry"
#: The menus, by what the user is doing.
START = f"{_PACK}/Start"
CALIBRATE = f"{_PACK}/Calibrate"
MEASURE = f"{_PACK}/Measure"
RECIPES = f"{_PACK}/Recipes"
FILES = f"{_PACK}/Files"
INTEROP = f"{_PACK}/Interop"
