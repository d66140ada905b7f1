"""Write, verify, inspect, compare and rescale checkpoints."""

from ..files.write import check_target
from .compare import CheckpointComparison, LayerComparison, compare_checkpoints
from .inspect import CheckpointSummary, LayerSummary, inspect_checkpoint
from .rescale import RescaledLayer, RescaleReport, rescale_checkpoint
from .verify import VerifyResult, verify_checkpoint
from .writer import CheckpointWriter

__all__ = [
    "CheckpointComparison",
    "CheckpointSummary",
    "CheckpointWriter",
    "LayerComparison",
    "LayerSummary",
    "RescaleReport",
    "RescaledLayer",
    "VerifyResult",
    "check_target",
    "compare_checkpoints",
    "inspect_checkpoint",
    "rescale_checkpoint",
    "verify_checkpoint",
]
