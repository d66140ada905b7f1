"""The interface of conventions for quantized weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ..base import TensorSource
from ..stored_weight import StoredWeight

#: A function per weight that describes it, by the weight's name after decoding. It raises
#: `SourceError` if the layer does not follow the convention after all, and `CheckpointError` if the
#: layer contradicts its marker.
Found = Mapping[str, Callable[[], StoredWeight]]


class Convention(Protocol):
    """How one family of tools stores quantized weights.

    Attributes:
        label: name of the convention for notes and errors.
        reference: public source of its layout: a repository and a file in it.
    """

    label: str
    reference: str

    def find(self, source: TensorSource) -> Found:
        """Return the weights that follow this convention. Loads nothing."""
        ...
