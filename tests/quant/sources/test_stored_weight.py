"""Quantized weights are decoded by rows: in bands, or only those that are asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.formats import base
from nvfp4_foundry.quant.sources import open_source
from nvfp4_foundry.quant.sources.decoded import DecodedSource
from safetensors.torch import save_file

from tests.helpers import quantized_files as qf
from tests.helpers.conversions import Toy

NAME = "blocks.0.ffn.0.weight"


@pytest.mark.parametrize("kind", [kind for kind in qf.MAKERS if kind != "plain fp8"])
def test_rows_decode_alike_however_many(
    tmp_path: Path, toy_wan: Toy, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    tensors = qf.MAKERS[kind](toy_wan(blocks=1))
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    with open_source(path) as source:
        stored = source.stored_weight(NAME)
        assert stored is not None
        rows, columns = stored.shape
        at_once = stored.read()(slice(0, rows))
        monkeypatch.setattr(base.row_slices, "__defaults__", (5 * columns,))
        assert torch.equal(source.load(NAME), at_once)
        starts = [0, columns - 3, 7 * columns, at_once.numel() - 2 * columns]
        runs = source.load_runs(NAME, starts, 2 * columns)
        for start, run in zip(starts, runs, strict=True):
            assert torch.equal(run, at_once.flatten()[start : start + 2 * columns])


def test_a_fingerprint_decodes_a_few_rows(tmp_path: Path, toy_wan: Toy) -> None:
    """Otherwise it would decode gigabytes in the largest models."""
    path = tmp_path / "model.safetensors"
    save_file({n: t.contiguous() for n, t in qf.modelopt(toy_wan(blocks=2)).items()}, path)
    decoded_rows = []
    with open_source(path) as source:
        assert isinstance(source, DecodedSource)

        def counting(stored, decode_rows):
            def count(rows: slice) -> torch.Tensor:
                decoded_rows.append(rows.stop - rows.start)
                return decode_rows(rows)

            return replace(stored, read=lambda: count)

        source._weights = {
            name: counting(stored, stored.read()) for name, stored in source._weights.items()
        }
        assert len(source.fingerprint().matrices) == 8
    assert decoded_rows and set(decoded_rows) == {1}
