"""A source whose missing tensors come from a second source."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import SourceError
from .base import TensorSource
from .view import SourceView

# Number of common vectors to compare, and the relative tolerance: bf16 keeps 8 significant bits.
_VECTORS, _TOLERANCE = 4, 2.0**-7
_NAMED = 4


class CompletedSource(SourceView):
    """A source with its missing tensors taken from a second source, after its own tensors.

    Raises:
        SourceError: the second source has nothing to add, or is of another model.
    """

    def __init__(self, source: TensorSource, second: TensorSource):
        super().__init__(source)
        self._second = second
        self.metadata = {**second.metadata, **source.metadata}
        self.paths = (*source.paths, *second.paths)
        self.comfyui_reads = False
        added = [name for name in second.tensors if name not in source.tensors]
        if not added:
            raise SourceError(
                f"{second.description} has no tensor that {source.description} lacks; "
                "leave complete_from out"
            )
        _require_fit(source, second, added)
        self._tensors = {**source.tensors, **{name: second.info(name) for name in added}}
        names = ", ".join(added[:_NAMED]) + (" and more" if len(added) > _NAMED else "")
        self.notes += (
            f"{len(added)} tensors are taken from {second.description} ({names})",
            *_difference_note(source, second),
        )

    def _origin(self, name: str) -> tuple[TensorSource, str]:
        return (self._source if name in self._source.tensors else self._second), name

    def require_unchanged(self) -> None:
        """Refuse files of both sources that changed since they were opened."""
        self._source.require_unchanged()
        self._second.require_unchanged()

    def close(self) -> None:
        """Close both sources."""
        self._source.close()
        self._second.close()


def _require_fit(source: TensorSource, second: TensorSource, added: list[str]) -> None:
    """Refuse a second source unless common tensors, or parts of one layer, have the same shapes.

    Raises:
        SourceError: shapes differ, or there is nothing to compare.
    """
    pairs = [*_common_shapes(source, second), *_partner_shapes(source, second, added)]
    if not pairs:
        raise SourceError(
            f"nothing shows that {second.description} is of the same model as "
            f"{source.description}: they have no name in common; choose a file of the same model"
        )
    for name, here, there in pairs:
        if here != there:
            raise SourceError(
                f"{second.description} is of another model than {source.description}: "
                f"{name} is {there} there and {here} here; choose a file of the same model"
            )


_Pair = tuple[str, tuple[int, ...], tuple[int, ...]]


def _common_shapes(source: TensorSource, second: TensorSource) -> Iterator[_Pair]:
    for name, info in second.tensors.items():
        if name in source.tensors:
            yield name, source.info(name).shape, info.shape


def _partner_shapes(
    source: TensorSource, second: TensorSource, added: list[str]
) -> Iterator[_Pair]:
    """Yield the rows of each added weight or bias, with those of its partner in ``source``."""
    for name in added:
        module, _, leaf = name.rpartition(".")
        partner = f"{module}.{'bias' if leaf == 'weight' else 'weight'}"
        if leaf in ("weight", "bias") and partner in source.tensors:
            yield name, source.info(partner).shape[:1], second.info(name).shape[:1]


def _difference_note(source: TensorSource, second: TensorSource) -> Iterator[str]:
    """Yield a note if common vectors have other values, as in a finetune or the wrong expert."""
    common = [
        name
        for name, info in source.tensors.items()
        if len(info.shape) == 1 and info.shape[0] and name in second.tensors
    ]
    for name in common[:: max(1, len(common) // _VECTORS)][:_VECTORS]:
        ours, theirs = source.load(name).double(), second.load(name).double()
        if float((ours - theirs).abs().max()) > _TOLERANCE * float(ours.abs().max()):
            yield (
                f"{second.description} is of the same architecture, but not the same model "
                f"({name} differs): make sure that the tensors taken from it fit this model"
            )
            return
