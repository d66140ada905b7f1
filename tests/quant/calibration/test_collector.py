"""A calibration, compared with plain arithmetic over the recorded inputs."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings
from nvfp4_foundry.quant.errors import CalibrationError

LAYERS = {"q", "k", "v", "o", "ffn.0", "ffn.2"}
MODES = {
    "grad": nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("mode", MODES)
def test_matches_plain_arithmetic(
    tiny_block, recording, check_layer, fingerprint, dtype, mode
) -> None:
    block = tiny_block().to(dtype)
    collector = ActivationCollector(CollectorSettings(rows_per_layer=10, mean_square_tokens=None))
    with recording(block) as inputs, MODES[mode](), collector.observe(block):
        for tokens in (1, 7, 3):
            block(torch.randn(2, tokens, 16, dtype=dtype))
    statistics = collector.snapshot(fingerprint)
    assert set(statistics.layers) == LAYERS
    for name, layer in statistics.layers.items():
        check_layer(layer, inputs[name])
        assert len(layer.rows) == 10


@pytest.mark.parametrize("order", [("inference", "grad"), ("grad", "inference"), ("no_grad",) * 2])
def test_totals_grow_across_modes_and_dtypes(
    tiny_block, recording, check_layer, fingerprint, order
) -> None:
    block = tiny_block()
    collector = ActivationCollector(CollectorSettings(rows_per_layer=9))
    with recording(block) as inputs:
        for mode in order * 2:
            with MODES[mode](), collector.observe(block):
                for _ in range(3):
                    block(torch.randn(2, 5, 16))
        block.to(torch.float64)
        with collector.observe(block):
            block(torch.randn(2, 5, 16, dtype=torch.float64))
    with torch.inference_mode():
        statistics = collector.snapshot(fingerprint)
    for name, layer in statistics.layers.items():
        check_layer(layer, inputs[name])


def test_strided_inputs_are_measured_without_a_flat_view(recording, check_layer, fingerprint):
    linear = torch.nn.Sequential(torch.nn.Linear(6, 2))
    collector = ActivationCollector(CollectorSettings(rows_per_layer=200))
    with recording(linear) as inputs, torch.inference_mode(), collector.observe(linear):
        x = torch.randn(4, 6, 5, 3).permute(0, 3, 2, 1)
        with pytest.raises(RuntimeError):
            x.view(-1, 6)
        linear(x)
        linear(torch.randn(6))
    layer = collector.snapshot(fingerprint).layers["0"]
    check_layer(layer, inputs["0"])
    assert len(layer.rows) == 61


def test_token_subset_is_counted_and_close(fingerprint) -> None:
    linear = torch.nn.Sequential(torch.nn.Linear(8, 2))
    collector = ActivationCollector(CollectorSettings(mean_square_tokens=100))
    x = torch.randn(30, 1000, 8)
    with torch.no_grad(), collector.observe(linear):
        for part in x:
            linear(part)
    layer = collector.snapshot(fingerprint).layers["0"]
    assert layer.tokens == 30_000
    assert 30 * 85 <= layer.tokens_used <= 30 * 100
    assert layer.amax == float(x.abs().max())
    np.testing.assert_allclose(layer.mean_square, (x**2).mean((0, 1)).numpy(), rtol=0.15)


def test_token_subset_does_not_follow_image_columns(fingerprint) -> None:
    linear = torch.nn.Sequential(torch.nn.Linear(1, 1))
    collector = ActivationCollector(CollectorSettings(mean_square_tokens=1024))
    with torch.no_grad(), collector.observe(linear):
        linear(torch.arange(4096.0).remainder(2).view(1, 4096, 1))
    layer = collector.snapshot(fingerprint).layers["0"]
    assert layer.tokens_used < 1024
    assert layer.mean_square[0] == pytest.approx(0.5, abs=0.01)


def test_cfg_branches_are_split_by_chunk(fingerprint) -> None:
    linear = torch.nn.Sequential(torch.nn.Linear(4, 4))
    collector = ActivationCollector()
    uncond, cond = torch.full((2, 3, 4), 2.0), torch.full((2, 3, 4), -5.0)
    sigma = torch.tensor([0.75, 0.75])
    with torch.inference_mode(), collector.observe(linear):
        collector.begin_call(sigma, [1, 0])
        sigma.zero_()
        linear(torch.cat([uncond, cond]))
        collector.begin_call(0.5, [0])
        linear(cond * 2)
        collector.begin_call(torch.tensor(0.25), [1, 0])
        linear(torch.ones(3, 4))
        collector.begin_call(None, [7])
        linear(torch.ones(1, 4))
    layer = collector.snapshot(fingerprint).layers["0"]
    assert layer.branch.tolist() == [1, 0, 0, -1, -1]
    assert layer.call_amax.tolist() == [2.0, 5.0, 10.0, 1.0, 1.0]
    np.testing.assert_array_equal(layer.sigma, [0.75, 0.75, 0.5, 0.25, np.nan])
    assert layer.calls == 4


def test_nonfinite_records_are_counted_and_left_out(fingerprint) -> None:
    linear = torch.nn.Sequential(torch.nn.Linear(4, 4))
    collector = ActivationCollector()
    good, bad = torch.full((1, 3, 4), 2.0), torch.full((1, 3, 4), 7.0)
    bad[0, 1, 2] = float("nan")
    with torch.no_grad(), collector.observe(linear):
        collector.begin_call(1.0, [0, 1])
        linear(torch.cat([good, bad]))
        collector.begin_call(1.0, [0])
        linear(good * torch.inf)
    statistics = collector.snapshot(fingerprint)
    layer = statistics.layers["0"]
    assert layer.nonfinite_calls == 2
    assert layer.amax == 2.0
    assert layer.mean_square.tolist() == [4.0] * 4
    assert (layer.tokens, layer.tokens_used) == (9, 3)
    assert torch.isfinite(layer.rows).all()
    assert statistics.coverage().nonfinite == ("0",)


def test_huge_finite_inputs_do_not_overflow(fingerprint) -> None:
    linear = torch.nn.Sequential(torch.nn.Linear(4, 4))
    collector = ActivationCollector()
    with torch.no_grad(), collector.observe(linear):
        linear(torch.full((2, 4), 1e30))
    layer = collector.snapshot(fingerprint).layers["0"]
    assert layer.nonfinite_calls == 0
    assert np.isfinite(layer.mean_square).all()


def test_unusable_inputs_are_skipped(fingerprint) -> None:
    class Passive(torch.nn.Linear):
        def forward(self, input: object) -> object:
            return input

    class Subclass(torch.Tensor):
        pass

    model = torch.nn.Sequential(Passive(4, 4))
    collector = ActivationCollector()
    with collector.observe(model):
        model[0](torch.ones(2, 4, dtype=torch.int8))
        model[0]((torch.ones(2, 4),))
        model[0](torch.ones(0, 4))
        model[0](torch.ones(2, 8))
        model[0](torch.ones(2, 4).as_subclass(Subclass))
        model[0](input=torch.ones(2, 4))
    assert collector.snapshot(fingerprint).layers["0"].calls == 1


def test_linears_are_found_by_duck_typing_and_names_normalized(fingerprint) -> None:
    class ForeignLinear(torch.nn.Module):
        comfy_cast_weights = True

        def __init__(self) -> None:
            super().__init__()
            self.in_features, self.out_features = 4, 4

        @property
        def weight(self) -> torch.Tensor:
            raise AssertionError("the weight was touched")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    model = torch.nn.ModuleDict(
        {
            "blocks": torch.nn.ModuleList(
                [torch.nn.ModuleDict({"_orig_mod": torch.nn.ModuleDict({"q": ForeignLinear()})})]
            ),
            "meta": torch.nn.Linear(4, 4, device="meta"),
            "norm": torch.nn.LayerNorm(4),
            "embed": torch.nn.Embedding(4, 4),
        }
    )
    collector = ActivationCollector()
    with collector.observe(model, prefix="net."):
        model["blocks"][0]["_orig_mod"]["q"](torch.ones(1, 4))
    assert set(collector.snapshot(fingerprint).layers) == {"net.blocks.0.q"}
    with collector.observe(model, layer_names=["meta"]):
        assert not model["blocks"][0]["_orig_mod"]["q"]._forward_pre_hooks
        assert model["meta"]._forward_pre_hooks
    with (
        pytest.raises(CalibrationError, match="none of the Linear layers"),
        collector.observe(model, ["absent"]),
    ):
        pass


def test_runs_and_later_snapshots(tiny_block, fingerprint) -> None:
    block = tiny_block()
    collector = ActivationCollector(CollectorSettings(rows_per_layer=4))
    first = collector.new_run(["a cat", "a dog"], {"steps": 2})
    with torch.no_grad(), collector.observe(block):
        collector.begin_call(1.0, [0])
        block(torch.ones(1, 5, 16))
    early = collector.snapshot(fingerprint)
    kept = {n: (s.rows.clone(), s.sum_squares.copy()) for n, s in early.layers.items()}
    second = collector.new_run("again")
    with torch.no_grad(), collector.observe(block):
        for _ in range(5):
            collector.begin_call(0.5, [0])
            block(torch.full((1, 5, 16), 3.0))
    late = collector.snapshot(fingerprint)
    assert [run.id for run in late.runs] == [first, second]
    assert [run.calls for run in late.runs] == [1, 5]
    assert late.runs[0].prompts == ("a cat", "a dog")
    assert late.layers["q"].run.tolist() == [0, 1, 1, 1, 1, 1]
    assert (early.layers["q"].calls, late.layers["q"].calls) == (1, 6)
    assert early.layers["q"].amax == 1.5
    for name, (rows, sums) in kept.items():
        assert torch.equal(early.layers[name].rows, rows)
        np.testing.assert_array_equal(early.layers[name].sum_squares, sums)
    collector.reset()
    empty = collector.snapshot(fingerprint)
    assert not empty.layers
    assert not empty.runs


def test_run_arguments_are_checked() -> None:
    collector = ActivationCollector()
    run = collector.new_run()
    with pytest.raises(CalibrationError, match="already has a run"):
        collector.new_run(run_id=run)
    with pytest.raises(CalibrationError, match="UUID"):
        collector.new_run(run_id="yesterday")
    with pytest.raises(CalibrationError, match="JSON"):
        collector.new_run(settings={"model": object()})
    for wrong in ({"rows_per_layer": -1}, {"mean_square_tokens": 0}, {"seed": -1}):
        with pytest.raises(CalibrationError):
            CollectorSettings(**wrong)


def test_continues_on_loaded_statistics(
    tiny_block, recording, check_layer, sample_statistics, fingerprint
) -> None:
    base = sample_statistics(rows=8)
    collector = ActivationCollector(CollectorSettings(rows_per_layer=8))
    collector.load_state(base)
    assert collector.snapshot(fingerprint).layers["q"].calls == base.layers["q"].calls
    block = tiny_block()
    with torch.no_grad(), collector.observe(block):
        block(torch.full((1, 2, 16), 100.0))
    both = collector.snapshot(fingerprint)
    assert both.layers["q"].calls == base.layers["q"].calls + 1
    assert both.layers["q"].amax == 150.0
    assert both.runs[0].id == base.runs[0].id
    again = ActivationCollector()
    again.load_state(both)
    other = type(fingerprint)(shapes={"q": (8, 8)}, probe={})
    with pytest.raises(CalibrationError, match="different model"):
        again.snapshot(other)
