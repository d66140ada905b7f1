"""The probe: shifts as by hand, nothing disturbed, nothing left behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from nvfp4_foundry.demo.digits import load_task
from nvfp4_foundry.demo.model import MODEL_PATH, load_model
from nvfp4_foundry.demo.sampling import simple_sigmas
from nvfp4_foundry.quant.calibration import ActivationCollector, CalibrationStatistics
from nvfp4_foundry.quant.calibration.sensitivity import (
    CandidateErrors,
    LayerSensitivity,
    Sensitivity,
)
from nvfp4_foundry.quant.errors import CalibrationError, FormatError
from nvfp4_foundry.quant.measure_sensitivity import measure_sensitivity
from nvfp4_foundry.quant.probe import LatentProbe
from nvfp4_foundry.quant.probe_schedule import ProbeSchedule, spread_steps
from nvfp4_foundry.quant.sources import StateDictSource, open_source
from torch import Tensor, nn

BLOCK = ("q", "k", "v", "o", "ffn.0", "ffn.2")


def random_input(seed: int = 3) -> Tensor:
    return torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def source(toy_model: nn.Module) -> StateDictSource:
    return StateDictSource(toy_model.state_dict())


@pytest.fixture
def statistics(toy_model: nn.Module, source: StateDictSource) -> CalibrationStatistics:
    collector = ActivationCollector()
    with torch.no_grad(), collector.observe(toy_model):
        for seed in range(4):
            collector.begin_call(0.5, [0])
            toy_model(random_input(seed))
    return collector.snapshot(source.fingerprint())


@pytest.fixture
def sensitivity(source: StateDictSource, statistics: CalibrationStatistics) -> Sensitivity:
    return measure_sensitivity(source, statistics, rounding="max")


def probe_once(probe: LatentProbe, model: nn.Module, sigma: float = 0.5, seed: int = 3) -> Tensor:
    """Probe one call; returns the model's own output."""
    x = random_input(seed)
    with torch.no_grad():
        reference = model(x)
        probe.probe(model, lambda: model(x), reference, sigma)
    return reference


def latents(sensitivity: Sensitivity, fmt: str = "nvfp4") -> dict[str, dict[float, float]]:
    """Return the shifts that are known."""
    return {
        name: dict(layer.candidates[fmt].latent_by_sigma)
        for name, layer in sensitivity.layers.items()
        if fmt in layer.candidates and layer.candidates[fmt].latent_by_sigma
    }


def hooks(model: nn.Module) -> int:
    """Count the hooks of any kind on a model."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


class ByHand(nn.Module):
    """A quantized Linear in float64, rounded value by value."""

    def __init__(self, linear: nn.Linear, amax: float | None, reference: ModuleType) -> None:
        super().__init__()
        self.weight = reference.weight_through_nvfp4(linear.weight)
        self.bias = linear.bias
        self.amax, self.reference = amax, reference

    def forward(self, x: Tensor) -> Tensor:
        amax = float(x.abs().max()) if self.amax is None else self.amax
        rounded = self.reference.through_nvfp4(x.reshape(-1, x.shape[-1]), amax / 2688)
        return nn.functional.linear(rounded.reshape(x.shape), self.weight, self.bias)


def shift_by_hand(
    model: nn.Module, names: list[str], amax: dict[str, float | None], reference: ModuleType
) -> float:
    """Return the relative shift of the output with these layers quantized, all in float64."""
    exact = copy.deepcopy(model).double()
    quantized = copy.deepcopy(exact)
    for name in names:
        linear = quantized.get_submodule(name)
        quantized.set_submodule(name, ByHand(linear, amax[name], reference))
    with torch.no_grad():
        x = random_input().double()
        wanted = exact(x)
        return float((quantized(x) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("static", [False, True])
def test_shifts_are_those_of_float64(
    toy_model: nn.Module,
    source: StateDictSource,
    statistics: CalibrationStatistics,
    sensitivity: Sensitivity,
    nvfp4_reference: ModuleType,
    static: bool,
) -> None:
    probe = LatentProbe(
        source,
        sensitivity,
        unit="layer",
        statistics=statistics if static else None,
        headroom=8.0,
    )
    assert len(probe.units) == 19  # head cannot be NVFP4
    probe_once(probe, toy_model)
    found = latents(probe.result())
    assert set(found) == set(probe.units)
    for name in ("embed", "blocks.0.v", "blocks.1.ffn.0", "blocks.2.o"):
        amax = {name: 8.0 * statistics.amax(name) if static else None}
        wanted = shift_by_hand(toy_model, [name], amax, nvfp4_reference)
        assert found[name] == {0.5: pytest.approx(wanted, rel=2e-3)}
    assert probe.result().cost("blocks.0.v", "nvfp4") == pytest.approx(
        found["blocks.0.v"][0.5] ** 2
    )


def test_layers_of_one_input_are_quantized_together(
    toy_model: nn.Module,
    source: StateDictSource,
    sensitivity: Sensitivity,
    nvfp4_reference: ModuleType,
) -> None:
    probe = LatentProbe(source, sensitivity)
    qkv = [f"blocks.1.{leaf}" for leaf in "qkv"]
    assert len(probe.units) == 13
    assert sorted(probe.units["blocks.1.k"]) == sorted(qkv)
    assert probe.units["blocks.1.o"] == ("blocks.1.o",)
    probe_once(probe, toy_model)
    found = {name: shift[0.5] for name, shift in latents(probe.result()).items()}
    for names in (qkv, ["blocks.1.o"]):
        wanted = shift_by_hand(toy_model, names, dict.fromkeys(names), nvfp4_reference)
        assert sum(found[name] ** 2 for name in names) ** 0.5 == pytest.approx(wanted, rel=5e-3)


def test_a_block_is_shared_by_squared_output_errors(
    toy_model: nn.Module,
    source: StateDictSource,
    sensitivity: Sensitivity,
    nvfp4_reference: ModuleType,
) -> None:
    probe = LatentProbe(source, sensitivity, unit="block")
    assert list(probe.units) == ["embed", "blocks.0", "blocks.1", "blocks.2"]
    probe_once(probe, toy_model)
    found = {name: shift[0.5] for name, shift in latents(probe.result()).items()}
    names = [f"blocks.1.{leaf}" for leaf in BLOCK]
    assert sorted(probe.units["blocks.1"]) == sorted(names)
    wanted = shift_by_hand(toy_model, names, dict.fromkeys(names), nvfp4_reference)
    assert sum(found[name] ** 2 for name in names) ** 0.5 == pytest.approx(wanted, rel=5e-3)
    errors = {name: sensitivity.candidates(name)["nvfp4"].w4a4 for name in names}
    ratios = [found[name] / errors[name] for name in names]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))


@pytest.mark.parametrize("known", [0, 2])
def test_a_block_is_shared_equally_where_errors_are_unknown(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity, known: int
) -> None:
    names = [f"blocks.0.{leaf}" for leaf in BLOCK]
    layers = dict(sensitivity.layers)
    for number, name in enumerate(names):
        errors = CandidateErrors(w4a4=0.1 * (number + 1) if number < known else None)
        layers[name] = replace(layers[name], candidates={"nvfp4": errors})
    probe = LatentProbe(source, replace(sensitivity, layers=layers), unit="block")
    probe_once(probe, toy_model)
    found = latents(probe.result())
    squares = [found[name][0.5] ** 2 for name in names]
    # errors of 0.1 and 0.2, if known; the unknown count as their mean square
    weights = [0.01, 0.04, *[0.025] * 4] if known else [1.0] * 6
    assert [s / sum(squares) for s in squares] == pytest.approx([w / sum(weights) for w in weights])


def test_calls_of_one_sigma_are_pooled(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    both = LatentProbe(source, sensitivity, unit="layer")
    squares = []
    for seed in (3, 4):
        alone = LatentProbe(source, sensitivity, unit="layer")
        norm = float(probe_once(alone, toy_model, seed=seed).double().norm())
        squares.append((latents(alone.result())["embed"][0.5] ** 2 * norm**2, norm**2))
        probe_once(both, toy_model, seed=seed)
    probe_once(both, toy_model, sigma=0.25)
    difference, norm = map(sum, zip(*squares, strict=True))
    found = latents(both.result())["embed"]
    assert both.calls == 3 and list(found) == [0.25, 0.5]
    assert found[0.5] == pytest.approx((difference / norm) ** 0.5, rel=1e-4)


class Interrupted(BaseException):
    """As ComfyUI's interruption: no Exception."""


@pytest.mark.parametrize("where", ["between units", "in the model", "in a layer"])
def test_an_exception_leaves_nothing_behind(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity, where: str
) -> None:
    probe = LatentProbe(source, sensitivity, unit="block")
    probe_once(probe, toy_model)
    before = latents(probe.result())
    x, runs = random_input(5), []
    reference = toy_model(x)

    def stop() -> None:
        raise Interrupted

    def run() -> Tensor:
        runs.append(hooks(toy_model))
        if len(runs) == 3 and where == "in the model":
            stop()
        if len(runs) == 3 and where == "in a layer":
            handle = toy_model.head.register_forward_pre_hook(lambda *a: stop())
            try:
                return toy_model(x)
            finally:
                handle.remove()
        return toy_model(x)

    def on_unit(done: int, total: int, unit: str) -> None:
        if done == 3 and where == "between units":
            stop()

    with pytest.raises(Interrupted):
        probe.probe(toy_model, run, reference, 0.25, on_unit)
    assert runs[-1] > 0 and hooks(toy_model) == 0
    assert torch.equal(toy_model(x), reference)
    assert probe.calls == 1 and latents(probe.result()) == before  # nothing of the broken call


def test_torch_random_state_is_untouched(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    probe, x = LatentProbe(source, sensitivity, unit="block"), random_input()
    drawn: list[Tensor] = []

    def run() -> Tensor:
        drawn.append(torch.rand(4))
        return toy_model(x)

    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    probe.probe(toy_model, run, toy_model(x), 0.5)
    assert torch.equal(torch.rand(4), expected)
    assert len(drawn) == 4 and all(torch.equal(values, expected) for values in drawn)


def test_what_did_not_run_is_unknown_not_harmless(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    """A cache that answers for the model would make every layer look free of error."""
    probe, x = LatentProbe(source, sensitivity, unit="layer"), random_input()
    reference = toy_model(x)
    probe.probe(toy_model, lambda: reference, reference, 0.5)
    assert set(probe.unreached) == set(probe.units)
    assert latents(probe.result()) == {}

    probe = LatentProbe(source, sensitivity, unit="block")
    toy_model.blocks[1].o = nn.Identity()  # the module tree lacks a layer of the source
    probe_once(probe, toy_model)
    assert probe.unreached == ("blocks.1.o",)
    assert set(latents(probe.result())) == set(probe.result().layers) - {"blocks.1.o", "head"}
    assert "blocks.1.o" in probe.result().unknown("nvfp4")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_shift_that_is_not_finite_is_unknown(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity, value: float
) -> None:
    probe, x = LatentProbe(source, sensitivity, unit="layer"), random_input()
    reference = toy_model(x)
    probe_once(probe, toy_model, sigma=0.75)

    def run() -> Tensor:
        hooked = bool(toy_model.embed._forward_hooks)
        return toy_model(x) + (value if hooked else 0.0)

    probe.probe(toy_model, run, reference, 0.5)
    found = latents(probe.result())
    assert "embed" not in found and len(found) == len(probe.units) - 1
    assert probe.result().cost("embed", "nvfp4") is None


def test_a_reference_of_zero_makes_all_unknown(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    probe, x = LatentProbe(source, sensitivity, unit="layer"), random_input()
    with torch.no_grad():
        probe.probe(toy_model, lambda: toy_model(x) * 0, toy_model(x) * 0, 0.5)
    assert latents(probe.result()) == {}


def test_a_weight_with_nan_is_not_probed(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    state = dict(toy_model.state_dict())
    state["blocks.0.o.weight"] = torch.full((32, 32), torch.nan)
    probe = LatentProbe(StateDictSource(state), sensitivity, unit="layer")
    assert "blocks.0.o" not in probe.units and len(probe.units) == 18


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes_keep_their_own(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity, dtype: torch.dtype
) -> None:
    """The layers of a 16-bit model see 16-bit inputs and must answer in kind."""
    exact = LatentProbe(source, sensitivity, unit="layer")
    probe_once(exact, toy_model)
    probe, model, x = (
        LatentProbe(source, sensitivity, unit="layer"),
        toy_model.to(dtype),
        random_input(),
    )
    with torch.no_grad():
        probe.probe(model, lambda: model(x.to(dtype)), model(x.to(dtype)), 0.5)
    wanted, found = latents(exact.result()), latents(probe.result())
    assert found["blocks.0.v"][0.5] == pytest.approx(wanted["blocks.0.v"][0.5], rel=0.1)


def test_packed_weights_take_their_own_size_on_cpu(
    source: StateDictSource, sensitivity: Sensitivity
) -> None:
    linear = LatentProbe(source, sensitivity, unit="layer")._linears["blocks.0.ffn.0"]
    assert linear.tensors["weight"].nbytes == 64 * 32 // 2
    assert all(tensor.device.type == "cpu" for tensor in linear.tensors.values())


def test_weight_only_format_leaves_activations_alone(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    both = {}
    for name in ("nvfp4", "nvfp4_w4a16"):
        probe = LatentProbe(source, sensitivity, format_name=name)
        probe_once(probe, toy_model)
        both[name] = latents(probe.result(), name)
        assert probe.result().has_latents
    assert both["nvfp4_w4a16"]["embed"][0.5] < both["nvfp4"]["embed"][0.5]


def test_refusals(toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity) -> None:
    with pytest.raises(CalibrationError, match="sample with the probed model first"):
        LatentProbe(source, sensitivity, unit="layer").result()
    with pytest.raises(FormatError, match="quantizes nothing"):
        LatentProbe(source, sensitivity, format_name="bf16")
    only_head = {"head": sensitivity.layers["head"]}
    with pytest.raises(CalibrationError, match="not measured for nvfp4"):
        LatentProbe(source, replace(sensitivity, layers=only_head))
    other = StateDictSource({n: t * 1.5 for n, t in toy_model.state_dict().items()})
    with pytest.raises(CalibrationError, match="different model"):
        LatentProbe(other, sensitivity)


def test_active_dropout_is_refused(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    probe = LatentProbe(source, sensitivity, unit="block")
    toy_model.blocks[0].ffn[1] = nn.Dropout(0.5)
    with pytest.raises(CalibrationError, match=r"blocks\.0\.ffn\.1 drops values"):
        probe_once(probe, toy_model.train())
    probe_once(probe, toy_model.eval())
    assert probe.calls == 1


def demo_sensitivity(statistics: bool = False) -> tuple[StateDictSource, Sensitivity]:
    """Return the demo model's weights and a sensitivity without output errors."""
    with open_source(MODEL_PATH) as file:
        source = StateDictSource({name: file.load(name) for name in file.tensors})
    candidates = {"nvfp4": CandidateErrors()}
    names = [n for n in source.fingerprint().shapes if n.startswith("blocks.")]
    layers = {
        n: LayerSensitivity(n, source.info(f"{n}.weight").shape, None, candidates) for n in names
    }
    return source, Sensitivity(source.fingerprint(), "max", layers)


def ancestral(model: nn.Module, on_call: Callable[[Callable[[], Tensor], Tensor, float], None]):
    """Sample the demo model, adding noise from torch's global generator at every step."""
    torch.manual_seed(5)
    x, context = torch.randn(2, 16, 1, 8, 8), load_task().contexts([3, 4]).float()
    sigmas = simple_sigmas(4).tolist()
    with torch.no_grad():
        for sigma, following in pairwise(sigmas):

            def run(x: Tensor = x, sigma: float = sigma) -> Tensor:
                return model(x, torch.full((2,), 1000 * sigma), context)

            velocity = run()
            on_call(run, velocity, sigma)
            x = x + (following - sigma) * velocity + 0.1 * following * torch.randn_like(x)
    return x


def test_sampling_the_demo_model_is_bit_equal() -> None:
    source, sensitivity = demo_sensitivity()
    model = load_model()
    wanted = ancestral(model, lambda *call: None)
    probe, schedule = LatentProbe(source, sensitivity, unit="block"), ProbeSchedule(2)
    schedule.begin(simple_sigmas(4).tolist())

    def on_call(run: Callable[[], Tensor], reference: Tensor, sigma: float) -> None:
        if schedule.wants(sigma):
            probe.probe(model, run, reference, sigma)

    assert torch.equal(ancestral(model, on_call), wanted)
    assert probe.calls == 2 and hooks(model) == 0
    found = latents(probe.result())
    assert len(found) == 40
    assert all(len(shift) == 2 and 0 < max(shift.values()) < 0.2 for shift in found.values())


def test_steps_are_the_middles_of_equal_parts() -> None:
    assert spread_steps(20, 3) == (3, 10, 16)
    assert spread_steps(4, 4) == spread_steps(4, 9) == (0, 1, 2, 3)
    assert spread_steps(5, 1) == (2,)
    assert spread_steps(0, 3) == spread_steps(3, 0) == ()


def test_schedule_takes_each_branch_of_a_chosen_step_once() -> None:
    schedule = ProbeSchedule(1)
    assert not schedule.wants(0.5, [0])  # no sampling began
    schedule.begin([1.0, 0.8, 0.5, 0.0])
    assert not schedule.wants(1.0, [0])
    assert schedule.wants(0.8, [1]) and schedule.wants(0.8, [0])
    assert not schedule.wants(0.8, [0])  # the second call of a second-order sampler
    assert not schedule.wants(0.75, [1]) and not schedule.wants(0.5, [0])
    schedule.begin([0.6, 0.3, 0.1, 0.0])
    assert schedule.wants(0.31, [0]) and not schedule.wants(0.6, [0])
