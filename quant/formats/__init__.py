"""Storage formats: one file per format, each with a `WeightFormat`."""

from .base import EncodedWeight, TensorSpec, WeightFormat
from .expert_bank import ExpertBank, for_shape
from .markers import format_of_marker
from .registry import FORMATS, KEEP, get_format
from .rule import ScaleRule

__all__ = [
    "FORMATS",
    "KEEP",
    "EncodedWeight",
    "ExpertBank",
    "ScaleRule",
    "TensorSpec",
    "WeightFormat",
    "for_shape",
    "format_of_marker",
    "get_format",
]
