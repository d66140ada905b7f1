"""Merging adds up runs in any order, and no run twice."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    merge,
    merge_all,
)
from nvfp4_foundry.quant.errors import CalibrationError
from nvfp4_foundry.quant.fingerprint import ModelFingerprint

FINGERPRINT = ModelFingerprint(shapes={"a": (4, 4)}, probe={"a.bias": (0.5,)})


@cache
def _part(seed: int, rows: int, layers: str, shared: bool, dtype: torch.dtype):
    """Make a calibration of one run in which some of three layers saw a few random tensors."""
    generator = torch.Generator().manual_seed(seed)
    linears = torch.nn.ModuleDict({n: torch.nn.Linear(4, 4, dtype=dtype) for n in "abc"})
    collector = ActivationCollector(CollectorSettings(rows))
    with torch.no_grad(), collector.observe(linears):
        for step in range(3):
            collector.begin_call(step / 3, [step % 2])
            x = torch.randn(1 + seed % 4, 4, generator=generator).to(dtype)
            for name in layers:
                linears[name](x if shared else x + 1)
    return collector.snapshot(FINGERPRINT)


PARTS = st.builds(
    _part,
    seed=st.integers(0, 30),
    rows=st.sampled_from([2, 5, 9]),
    layers=st.sampled_from(["a", "ab", "abc", "bc", "c"]),
    shared=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
DISTINCT = st.lists(PARTS, min_size=3, max_size=3, unique_by=lambda part: part.runs[0].id)


def assert_equal(a: CalibrationStatistics, b: CalibrationStatistics) -> None:
    assert a.runs == b.runs
    assert a.rows_per_layer == b.rows_per_layer
    assert (a.tool_versions, a.changed_layers) == (b.tool_versions, b.changed_layers)
    assert list(a.layers) == list(b.layers)
    for name, left in a.layers.items():
        right = b.layers[name]
        for field in ("input_id", "in_features", "calls", "tokens", "tokens_used", "row_limit"):
            assert getattr(left, field) == getattr(right, field), (name, field)
        for field in ("sigma", "branch", "call_amax", "run", "channel_amax", "priorities"):
            ours, theirs = getattr(left, field), getattr(right, field)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        assert left.rows.dtype == right.rows.dtype
        assert torch.equal(left.rows, right.rows)
        np.testing.assert_allclose(left.sum_squares, right.sum_squares, rtol=1e-12)


@settings(deadline=None)
@given(DISTINCT)
def test_associative_and_commutative(parts) -> None:
    a, b, c = parts
    expected = merge(merge(a, b), c)
    assert_equal(expected, merge(a, merge(b, c)))
    for order in permutations(parts):
        assert_equal(expected, merge_all(order))
    assert_equal(merge(a, b), merge(b, a))


@settings(deadline=None)
@given(DISTINCT)
def test_merging_is_counting_everything_together(parts) -> None:
    merged = merge_all(parts)
    for name, layer in merged.layers.items():
        sources = [part.layers[name] for part in parts if name in part.layers]
        assert layer.calls == sum(s.calls for s in sources)
        assert layer.tokens == sum(s.tokens for s in sources)
        assert layer.amax == max(s.amax for s in sources)
        for record in range(layer.calls):
            run = merged.runs[layer.run[record]].id
            (source,) = (p.layers[name] for p in parts if p.runs[0].id == run)
            assert layer.call_amax[record] in source.call_amax
        limit = min(s.row_limit for s in sources)
        every = np.sort(np.concatenate([s.priorities for s in sources]))
        expected = every[every < limit][: merged.rows_per_layer]
        np.testing.assert_array_equal(layer.priorities, expected)


def test_sharing_survives_only_where_it_held_everywhere() -> None:
    both = [_part(s, 5, "ab", True, torch.float32) for s in (1, 2)]
    merged = merge_all(both)
    assert merged.layers["a"] is merged.layers["b"]
    apart = merge_all([both[0], _part(3, 5, "a", True, torch.float32)])
    assert apart.layers["a"] is not apart.layers["b"]
    assert (apart.layers["a"].calls, apart.layers["b"].calls) == (6, 3)


def test_merged_sample_is_uniform() -> None:
    hits = np.zeros(2)
    for seed in range(300):
        parts = []
        for value, tokens in ((0.0, 100), (1.0, 300)):
            linear = torch.nn.Sequential(torch.nn.Linear(1, 1))
            collector = ActivationCollector(CollectorSettings(16, seed=seed))
            with torch.no_grad(), collector.observe(linear):
                linear(torch.full((tokens, 1), value))
            parts.append(collector.snapshot(FINGERPRINT))
        rows = merge_all(parts).layers["0"].rows
        assert len(rows) == 16
        hits += [int((rows == 0).sum()), int((rows == 1).sum())]
    share = hits[0] / hits.sum()
    assert share == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / hits.sum()) ** 0.5)


def test_a_run_never_counts_twice() -> None:
    a, b = _part(1, 5, "a", True, torch.float32), _part(2, 5, "a", True, torch.float32)
    with pytest.raises(CalibrationError, match=a.runs[0].id):
        merge(a, a)
    with pytest.raises(CalibrationError, match=b.runs[0].id):
        merge(merge(a, b), b)


def test_other_models_and_nothing_are_refused() -> None:
    a = _part(1, 5, "a", True, torch.float32)
    wider = ModelFingerprint(shapes={"a": (4, 8)}, probe={})
    with pytest.raises(CalibrationError, match=r"different model: a is \(4, 4\) here"):
        merge(a, replace(_part(2, 5, "a", True, torch.float32), fingerprint=wider))
    expert = ModelFingerprint(shapes={"a": (4, 4)}, probe={"a.bias": (0.7,)})
    with pytest.raises(CalibrationError, match=r"values of a\.bias differ"):
        merge(a, replace(_part(2, 5, "a", True, torch.float32), fingerprint=expert))
    with pytest.raises(CalibrationError, match="no calibration to merge"):
        merge_all([])


def test_a_layer_changed_in_one_run_and_seen_in_another_is_seen() -> None:
    a = replace(_part(1, 5, "a", True, torch.float32), changed_layers=("b", "c"))
    merged = merge(a, _part(2, 5, "ab", True, torch.float32))
    assert merged.changed_layers == ("c",)
