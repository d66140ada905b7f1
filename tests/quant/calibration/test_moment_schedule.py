"""The budget for second moments is kept, and all inputs get enough after some runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings, describe_budget
from nvfp4_foundry.quant.calibration.moment_accumulator import moments_bytes
from nvfp4_foundry.quant.calibration.moment_schedule import ENOUGH_TOKENS, tokens_per_call
from nvfp4_foundry.quant.fingerprint import ModelFingerprint

from tests.helpers.moments_by_hand import BIG, Observed


def test_the_budget_goes_round(observe: Callable[..., Observed], tmp_path: Path) -> None:
    """The budget has room for one wide or a few narrow inputs; after some runs all have theirs."""
    budget = moments_bytes(40) + moments_bytes(16)
    folder = tmp_path / "moments"
    collector = ActivationCollector(
        CollectorSettings(rows_per_layer=4, moments_budget_bytes=budget, moments_folder=folder)
    )
    statistics, _ = observe(1, collector)
    first = {name for name, layer in statistics.layers.items() if layer.moments}
    assert first and len(first) < 6
    statistics, _ = observe(4, collector)
    assert all(layer.moments for layer in statistics.layers.values())
    parts = [p for la in statistics.inputs.values() if la.moments for p in la.moments.parts]
    assert {part.path for part in parts} == set(folder.glob("*.safetensors"))
    for run in statistics.runs:
        held = sum(moments_bytes(part.in_features) for part in parts if part.run == run.id)
        assert held <= budget


def test_a_run_gathers_enough_whatever_its_steps() -> None:
    for steps in (1, 4, 20, 50):
        gathered = 2 * steps * tokens_per_call(3072, 1, steps)
        assert 1.2 * ENOUGH_TOKENS * 3072 < gathered < 2 * ENOUGH_TOKENS * 3072
    assert tokens_per_call(3072, 2, 4) == 2 * tokens_per_call(3072, 1, 4)
    assert tokens_per_call(3072, 1, None) == tokens_per_call(3072, 1, 20)
    assert tokens_per_call(64, 1, 20) == 256


def test_the_budget_says_what_is_still_missing(observe: Callable[..., Observed]) -> None:
    """Of inputs of width 16 and 40, the budget has room for the narrow ones only."""
    settings = CollectorSettings(rows_per_layer=4, moments_budget_bytes=2 * moments_bytes(16))
    statistics, _ = observe(1, ActivationCollector(settings))
    text = describe_budget(statistics, settings)
    assert text.startswith(
        "hessians_mb is too small for the Hessians of 1 input, such as ffn.2: they need up to 1"
    )
    assert "Hessians of 1 input need about 2 more runs to reach 8 tokens per channel" in text
    assert describe_budget(statistics, CollectorSettings()) == ""
    roomy = CollectorSettings(rows_per_layer=4, moments_budget_bytes=BIG)
    assert describe_budget(observe(3, ActivationCollector(roomy))[0], roomy) == ""


def test_the_runs_left_are_those_it_takes(observe: Callable[..., Observed]) -> None:
    """The announced number of runs is about right, even if a run has few tokens."""
    settings = CollectorSettings(
        rows_per_layer=4, moments_budget_bytes=BIG, moments_tokens_per_channel=60.0
    )
    collector = ActivationCollector(settings)
    text = describe_budget(observe(1, collector)[0], settings)
    announced = int(text.split("need about ")[1].split()[0])
    assert announced > 6 and text.endswith("to reach 60 tokens per channel")
    assert describe_budget(observe(announced - 4, collector)[0], settings)
    assert describe_budget(observe(6, collector)[0], settings) == ""


def test_inputs_that_are_the_prompts_do_not_ask_for_runs(
    observe: Callable[..., Observed],
) -> None:
    """Every call of a run has the same tokens, as from a text encoder: 60 rows per run."""
    settings = CollectorSettings(
        rows_per_layer=4, moments_budget_bytes=BIG, moments_tokens_per_channel=60.0
    )
    text = describe_budget(observe(1, ActivationCollector(settings), same=True)[0], settings)
    assert "more runs" not in text and text.endswith("more prompts")


def test_no_more_is_gathered_than_is_enough(observe: Callable[..., Observed]) -> None:
    settings = CollectorSettings(
        rows_per_layer=4, moments_budget_bytes=BIG, moments_tokens_per_channel=10.0
    )
    statistics, _ = observe(4, ActivationCollector(settings))
    for name, parts in (("q", 1), ("ffn.2", 2)):  # 240 tokens per run for 16 and for 40 channels
        moments = statistics.layers[name].moments
        assert moments is not None and len(moments.parts) == parts


class Fan(torch.nn.Module):
    """Layers that share one input, or that each get their own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(16, 4) for _ in range(6))

    def forward(self, *inputs: torch.Tensor) -> None:
        for layer, x in zip(self.layers, inputs, strict=True):
            layer(x)


def test_layers_that_part_need_room_of_their_own(fingerprint: ModelFingerprint) -> None:
    """Six layers share an input in the first run but not in the third; the budget still holds."""
    settings = CollectorSettings(0, moments_budget_bytes=2 * moments_bytes(16))
    fan, collector = Fan(), ActivationCollector(settings)
    shared = torch.randn(20, 16)
    with torch.no_grad():
        for run in range(3):
            collector.new_run()
            with collector.observe(fan):
                for _ in range(2):
                    fan(*([shared] * 6 if run < 2 else [torch.randn(20, 16) for _ in range(6)]))
    statistics = collector.snapshot(fingerprint)
    third = statistics.runs[2].id
    held = [la for la in statistics.inputs.values() if la.moments and third in la.moments.runs]
    assert 1 <= len(held) <= 2
