"""What each convention of quantized weights has to tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ..base import TensorSource
from ..stored_weight import StoredWeight

#: Weights of one convention by the name they have when decoded, and what describes each: it
#: raises `SourceError` where a layer does not follow the convention after all, `CheckpointError`
#: where its marker is contradicted.
Found = Mapping[str, Callable[[], StoredWeight]]


class Convention(Protocol):
    """How one family of tools stores quantized weights.

    Attributes:
        label: whose convention it is, for notes and errors.
        reference: where its layout is published: a repository and a file in it.
    """

    label: str
    reference: str

    def find(self, source: TensorSource) -> Found:
        """Return the weights that are stored so; nothing is loaded yet."""
        ...
