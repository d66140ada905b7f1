"""A digest of what is in a calibration, so that another one is told apart."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch

from ..files.digest import digest_of, digest_of_tensor
from .records import LayerStatistics
from .statistics import CalibrationStatistics


def digest_of_statistics(statistics: CalibrationStatistics) -> str:
    """Return one digest of all that was observed, in hex.

    Hessians count with the ids of their parts, which never change, because they may take tens of
    gigabytes.
    """
    inputs = {found.input_id: _digest_of_input(found) for found in statistics.inputs.values()}
    layers = {name: found.input_id for name, found in statistics.layers.items()}
    return digest_of(
        repr((sorted(inputs.items()), sorted(layers.items()), statistics.runs,
              statistics.rows_per_layer, statistics.fingerprint.digest,
              sorted(statistics.changed_layers)))
    )  # fmt: skip


def _digest_of_input(found: LayerStatistics) -> str:
    parts = found.moments.parts if found.moments else ()
    texts = [repr([(part.id, part.run, part.tokens) for part in parts])]
    for field in fields(found):
        value = getattr(found, field.name)
        if isinstance(value, torch.Tensor):
            texts.append(digest_of_tensor(value))
        elif isinstance(value, np.ndarray):
            texts.append(digest_of_tensor(torch.from_numpy(np.ascontiguousarray(value))))
        elif field.name != "moments":
            texts.append(repr(value))
    return digest_of("\n".join(texts))
