"""Tensor names without what wrappers of torch put into them while they train or compile."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from ..errors import SourceError
from .base import TensorSource
from .view import SourceView

#: torch.compile, FullyShardedDataParallel and activation checkpointing add these, at any depth.
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_WRAPPER = re.compile(rf"(?<![^.])(?:{'|'.join(WRAPPERS)})\.")


def without_wrappers(name: str) -> str:
    """Return a name without the segments that wrappers add."""
    return _WRAPPER.sub("", name)


def has_wrappers(names: Iterable[str]) -> bool:
    """Whether any name has such a segment."""
    return any(_WRAPPER.search(name) for name in names)


class UnwrappedSource(SourceView):
    """A source whose names do not have the segments of wrappers.

    Raises:
        SourceError: two tensors would get one name.
    """

    def __init__(self, source: TensorSource):
        found = next(w for w in WRAPPERS if any(w in name for name in source.tensors))
        super().__init__(source, f"the names are used without {found!r}, which a wrapper added")
        self.comfyui_reads = False
        # the header may list the layers' formats by name
        self.metadata = {
            key: _WRAPPER_IN_TEXT.sub(r"\1", text) for key, text in source.metadata.items()
        }
        self._original: dict[str, str] = {}
        for name in source.tensors:
            short = without_wrappers(name)
            if short in self._original:
                raise SourceError(
                    f"{source.description} holds {short} twice, as {self._original[short]} and as "
                    f"{name}, so it may hold two models; start from a file with one"
                )
            self._original[short] = name
        self._tensors = {
            name: replace(source.info(original), name=name)
            for name, original in self._original.items()
        }

    def _origin(self, name: str) -> tuple[TensorSource, str]:
        return self._source, self._original[name]


_WRAPPER_IN_TEXT = re.compile(rf'(["\.])(?:(?:{"|".join(WRAPPERS)})\.)+')
