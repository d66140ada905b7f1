"""Views: what a node, an HTML page and a model card show of a result, as one compact object."""

from ..messages import Message
from .calibration import calibration_view
from .checkpoint import checkpoint_view
from .conversion import conversion_view
from .layer_view import LayerView, Tile
from .mix import mix_view
from .plan import plan_view
from .sensitivity import sensitivity_view
from .text import text_view

__all__ = [
    "LayerView",
    "Message",
    "Tile",
    "calibration_view",
    "checkpoint_view",
    "conversion_view",
    "mix_view",
    "plan_view",
    "sensitivity_view",
    "text_view",
]
