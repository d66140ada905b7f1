"""Calibration: measure what every layer receives while the user samples."""

from .accumulator import RunAccumulator
from .collector import ActivationCollector
from .convergence import Convergence, assess_convergence
from .coverage import CoverageReport
from .input_scale import InputScalePolicy, ScaleDecision, decide_scales, represented_amax
from .input_scale.policy import parse_policy
from .merge import merge, merge_all
from .moment_schedule import ENOUGH_TOKENS, describe_budget
from .records import LayerStatistics, RunRecord, SigmaBin, amax_by_branch, amax_by_sigma
from .settings import CollectorSettings
from .statistics import CalibrationStatistics
from .storage import (
    delete_moments,
    load_fingerprint,
    load_statistics,
    moments_folder,
    save_statistics,
)

__all__ = [
    "ENOUGH_TOKENS",
    "ActivationCollector",
    "CalibrationStatistics",
    "CollectorSettings",
    "Convergence",
    "CoverageReport",
    "InputScalePolicy",
    "LayerStatistics",
    "RunAccumulator",
    "RunRecord",
    "ScaleDecision",
    "SigmaBin",
    "amax_by_branch",
    "amax_by_sigma",
    "assess_convergence",
    "decide_scales",
    "delete_moments",
    "describe_budget",
    "load_fingerprint",
    "load_statistics",
    "merge",
    "merge_all",
    "moments_folder",
    "parse_policy",
    "represented_amax",
    "save_statistics",
]
