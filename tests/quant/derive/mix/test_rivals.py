"""Mixes that are sampled whole: on the demo model, and which one is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from nvfp4_foundry.demo.digits import load_task
from nvfp4_foundry.demo.model import MODEL_PATH, TinyWan, load_model
from nvfp4_foundry.demo.sampling import sample
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings
from nvfp4_foundry.quant.checkpoint.decoded import decoded_tensors
from nvfp4_foundry.quant.conversion.convert import quantize_to_memory
from nvfp4_foundry.quant.derive import Budget, mix_plan, rival_mixes
from nvfp4_foundry.quant.derive.mix.rivals import formats_of
from nvfp4_foundry.quant.hardware.emulation import emulate_native_product, read_input_roundings
from nvfp4_foundry.quant.planning import Inventory, Plan, get_preset, make_plan, take_inventory
from nvfp4_foundry.quant.reports.mix import describe_mix
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity, load_sensitivity, save_sensitivity
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sensitivity.probe import SAMPLED, LatentProbe
from nvfp4_foundry.quant.sensitivity.whole import WholeShift, formats_digest
from nvfp4_foundry.quant.sources import StateDictSource, TensorSource, open_source

FORMATS = ("nvfp4", "float8_e4m3fn")
DIGITS, STEPS = [3, 8], 2

Probed = tuple[TensorSource, TinyWan, Plan, Inventory, Sensitivity]


def drawn(model: TinyWan) -> torch.Tensor:
    return sample(model, DIGITS, 5, STEPS, task=load_task())


@pytest.fixture(scope="module")
def probed() -> Iterator[Probed]:
    """Probe the demo model in one short sampling, and sample the rivals whole."""
    model = load_model()
    with open_source(MODEL_PATH) as source:
        inventory = take_inventory(source)
        recipe = get_preset("wan2.2-14b").build({}).with_numbers("max", "dynamic")
        base = make_plan(recipe, inventory)
        collector = ActivationCollector(CollectorSettings())
        collector.new_run("two digits")
        with collector.observe(model):
            sample(model, DIGITS, 1, STEPS, on_step=collector.begin_call, task=load_task())
        statistics = collector.snapshot(source.fingerprint())
        measured = measure_sensitivity(source, statistics, FORMATS, rounding="max")
        probe = LatentProbe(source, measured, formats=FORMATS)
        reference = drawn(model)
        probe.probe(model, lambda: drawn(model), reference, SAMPLED)
        mixes = rival_mixes(base, inventory, probe.result())
        probe.sample_whole(model, lambda: drawn(model), reference, mixes)
        yield source, model, base, inventory, probe.result()


def shift_of(plan: Plan, source: TensorSource, model: TinyWan) -> float:
    """Return the shift of a plan without the probe: decoded weights and emulated products."""
    made = quantize_to_memory(source, plan)
    stored = StateDictSource(made.tensors, metadata=made.metadata)
    quantized = TinyWan.from_state_dict(decoded_tensors(stored))
    reference = drawn(model)
    with emulate_native_product(quantized, read_input_roundings(stored)):
        return float((drawn(quantized) - reference).norm() / reference.norm())


def test_a_mix_is_never_worse_than_its_preset(probed: Probed) -> None:
    source, model, base, inventory, sensitivity = probed
    mix = mix_plan(base, inventory, sensitivity)
    assert mix.sampled is not None and mix.sampled.preset is not None
    assert mix.sampled.mixes > 2
    assert mix.sampled.mix <= min(mix.sampled.preset, mix.sampled.least_sum)
    assert mix.point.bytes <= base.bytes_after
    shifts = [each.shift for each in mix.sampled.points]
    assert shifts == sorted(shifts) and len(shifts) == mix.sampled.mixes
    assert mix.sampled.points[0].point == mix.point and shifts[0] == mix.sampled.mix
    least = min(mix.sampled.points, key=lambda each: each.point.error)
    assert least.shift == mix.sampled.least_sum
    (preset,) = (each.shift for each in mix.sampled.points if each.is_preset)
    assert preset == mix.sampled.preset
    for plan, shift in ((mix.plan, mix.sampled.mix), (base, mix.sampled.preset)):
        assert shift_of(plan, source, model) == pytest.approx(shift, rel=0.02)
    assert f"sampled {mix.sampled.mix:.2%} whole" in describe_mix(mix)


def test_the_mix_that_moved_the_latent_least_is_taken(probed: Probed) -> None:
    """Whatever the sum of single shifts predicts; the preset too, and only within the budget."""
    _, _, base, inventory, sensitivity = probed
    for number, whole in enumerate(sensitivity.whole):
        shifts = tuple(
            replace(other, shift=0.01 if other is whole else 0.02 + i / 1000)
            for i, other in enumerate(sensitivity.whole)
        )
        mix = mix_plan(base, inventory, replace(sensitivity, whole=shifts), points=0)
        assert formats_digest(formats_of(mix.plan)) == whole.key, number
        assert mix.sampled is not None and mix.sampled.mix == 0.01
        assert mix.sampled.points[0].point == mix.point
        is_preset = whole.key == formats_digest(formats_of(base))
        assert ("none is better than the preset" in describe_mix(mix)) == is_preset


def test_mixes_of_fewer_samplings_are_not_compared(probed: Probed) -> None:
    _, _, base, inventory, sensitivity = probed
    often = tuple(replace(whole, samplings=2) for whole in sensitivity.whole)
    better = WholeShift({**sensitivity.whole[0].formats, "blocks.0.ffn.0": "nvfp4"}, 0.0, 1)
    mix = mix_plan(base, inventory, replace(sensitivity, whole=(*often, better)), points=0)
    assert mix.sampled is not None and mix.sampled.mixes <= len(often)
    without = replace(sensitivity, whole=())
    assert mix_plan(base, inventory, without, points=0).sampled is None


def test_a_limit_of_the_error_is_not_compared_with_whole_shifts(probed: Probed) -> None:
    """Its best mix may be one that was sampled."""
    _, _, base, inventory, sensitivity = probed
    sampled = mix_plan(base, inventory, replace(sensitivity, whole=()), points=0)
    for budget in (Budget(error=sampled.point.error * 1.0001), Budget(layer_error=0.05)):
        mix = mix_plan(base, inventory, replace(sensitivity, whole=()), budget, points=0)
        same = WholeShift(formats_of(mix.plan), 0.1)
        again = mix_plan(base, inventory, replace(sensitivity, whole=(same,)), budget, points=0)
        assert again.sampled is None and again.plan == mix.plan


def test_whole_shifts_are_saved_and_older_files_have_none(
    probed: Probed, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("saved") / "sensitivity.json"
    save_sensitivity(probed[-1], path)
    assert load_sensitivity(path).whole == probed[-1].whole
    older = probed[-1].to_json()
    del older["whole"]
    assert Sensitivity.from_json(older).whole == ()
