"""Writing, verifying and inspecting checkpoints."""

from .inspect import CheckpointSummary, LayerSummary, inspect_checkpoint
from .verify import VerifyResult, verify_checkpoint
from .writer import CheckpointWriter, check_target

__all__ = [
    "CheckpointSummary",
    "CheckpointWriter",
    "LayerSummary",
    "VerifyResult",
    "check_target",
    "inspect_checkpoint",
    "verify_checkpoint",
]
