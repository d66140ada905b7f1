"""One exception class per stage of the pipeline, all under ``FoundryError``.

The message is for the user: what is wrong, in which file or layer, and what to do.
"""

from __future__ import annotations


class FoundryError(Exception):
    """Base of every error this package raises on purpose."""


class UsageError(FoundryError):
    """Arguments of the command line that make no sense together (exit code 2)."""


class SourceError(FoundryError):
    """A source file is missing, malformed, ambiguous or of a kind not supported."""


class RecipeError(FoundryError):
    """A recipe or preset is invalid or does not fit the model."""


class PlanError(FoundryError):
    """A recipe cannot be resolved against this model."""


class FormatError(FoundryError):
    """A weight cannot be stored in the requested format."""


class CalibrationError(FoundryError):
    """Statistics are missing, damaged, or belong to another model."""


class CheckpointError(FoundryError):
    """A checkpoint cannot be written or read back."""


class CompareError(FoundryError):
    """Two samples or checkpoints are not of the same kind, shape or model."""
