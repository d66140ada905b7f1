"""A quantized source with its weights decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from ..errors import FormatError, SourceError, is_out_of_memory
from ..formats.e4m3 import decode_e4m3
from .base import StoredAs, TensorInfo, TensorSource
from .stored_layers import QUANTIZATION_METADATA
from .stored_weight import StoredWeight
from .view import SourceView


class DecodedSource(SourceView):
    """A source with its quantized weights decoded by their own scales; other tensors unchanged.

    Decoded weights load as float32. `stored_weight` gives their stored form. Scales, markers and
    packed tensors are not listed.
    """

    def __init__(
        self,
        source: TensorSource,
        weights: Mapping[str, StoredWeight],
        notes: tuple[str, ...] = (),
        hidden: Collection[str] = (),
    ):
        """Take the quantized weights, by their name after decoding (``blocks.0.ffn.0.weight``).

        ``hidden`` names tensors that are not part of the model.
        """
        super().__init__(source, *notes)
        self._weights = weights
        self.metadata = {n: t for n, t in source.metadata.items() if n != QUANTIZATION_METADATA}
        self.comfyui_reads = source.comfyui_reads and all(
            weight.comfyui_reads for weight in weights.values()
        )
        listed = _list_tensors(source, weights)
        self._tensors = {name: info for name, info in listed.items() if name not in hidden}

    def stored_weight(self, name: str) -> StoredWeight | None:
        """Return how a weight is stored, or None if it is not quantized."""
        return self._weights.get(name)

    def load(self, name: str) -> torch.Tensor:
        """Return a tensor; decoded weights and 8-bit floats are float32, others as stored."""
        self.info(name)
        weight = self._weights.get(name)
        if weight is None:
            return widened(self._source.load(name))
        with self._naming(name, weight):
            return weight.decode()

    def load_runs(self, name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        """Return parts of a tensor. Decodes only the rows that hold them."""
        weight = self._weights.get(name)
        if weight is None:
            return widened(super().load_runs(name, starts, length))
        with self._naming(name, weight):
            return weight.decode_runs(starts, length)

    @contextmanager
    def _naming(self, name: str, weight: StoredWeight) -> Iterator[None]:
        """Turn errors of decoding into a `SourceError` that names the weight."""
        try:
            yield
        except (FormatError, RuntimeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise SourceError(
                f"{self.description}: {name} ({weight.label}) cannot be decoded: {error}"
            ) from error


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that torch can compute with: 8-bit floats become float32."""
    if tensor.dtype == torch.float8_e4m3fn:
        return decode_e4m3(tensor)  # torch converts these one by one
    narrow = tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1
    return tensor.float() if narrow else tensor


def _list_tensors(
    source: TensorSource, weights: Mapping[str, StoredWeight]
) -> dict[str, TensorInfo]:
    """Return the model's tensors in the source's order. A weight comes where its first part is."""
    dtype = _working_dtype(source, weights)
    owner = {name: weight for weight, stored in weights.items() for name in stored.names}
    found: dict[str, TensorInfo] = {}
    for name, info in source.tensors.items():
        weight = owner.get(name)
        if weight is None:
            found.setdefault(name, info)
        elif weight not in found:
            stored = weights[weight]
            about = StoredAs(stored.label, stored.nbytes, stored.kept_as)
            found[weight] = TensorInfo(weight, stored.shape, dtype, about)
    return found


def _working_dtype(source: TensorSource, weights: Mapping[str, StoredWeight]) -> torch.dtype:
    """Return the 16-bit dtype that most of the unquantized model has; bfloat16 if there is none."""
    parts = {name for stored in weights.values() for name in stored.names}
    sizes: Counter[torch.dtype] = Counter()
    for name, info in source.tensors.items():
        if name not in parts and info.dtype in (torch.float16, torch.bfloat16):
            sizes[info.dtype] += info.nbytes
    return sizes.most_common(1)[0][0] if sizes else torch.bfloat16
