"""Second-order rounding is kept only if it is better on held-out inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    load_statistics,
    moments_folder,
    save_statistics,
)
from nvfp4_foundry.quant.calibration.moments import InputMoments
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.conversion.choose_encoding import choose_encoding, taken_over
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import CalibrationError
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.planning import get_preset, make_plan, take_inventory
from nvfp4_foundry.quant.reports.conversion import conversion_headline
from nvfp4_foundry.quant.rounding import get_rounding
from nvfp4_foundry.quant.sources import SafetensorsFile
from safetensors.torch import save_file

from tests.helpers.observed_inputs import WIDTH, low_rank, observe, weight_of, white

NVFP4 = get_format("nvfp4")


@pytest.mark.parametrize("rounding", ["gptq", "gptaq"])
def test_what_helps_is_kept_and_says_what_it_gained(rounding: str) -> None:
    observed = observe(low_rank())
    plain = choose_encoding(weight_of(), NVFP4, "weighted", observed, None)
    chosen = choose_encoding(weight_of(), NVFP4, rounding, observed, None)
    assert chosen.rounding == rounding
    assert plain.error is not None and chosen.error is not None
    assert chosen.error.w4a4 < plain.error.w4a4
    assert f"{plain.error.w4a4:.2%} -> {chosen.error.w4a4:.2%}" in chosen.reason
    assert "held-out tokens from other runs" in chosen.reason


def test_what_does_not_help_is_not_kept() -> None:
    """The held-out prompts have other directions than the prompts of the Hessian."""

    def draw(seed: int) -> torch.Tensor:
        return low_rank()(seed) if seed < 10 else 4 * white(seed)

    observed = observe(draw)
    chosen = choose_encoding(weight_of(), NVFP4, "gptaq", observed, None)
    plain = choose_encoding(weight_of(), NVFP4, "weighted", observed, None)
    assert chosen.rounding == "weighted"
    assert chosen.reason.startswith("weighted, not gptaq: error ") and "; gptq: " in chosen.reason
    assert torch.equal(chosen.encoded.tensors["weight"], plain.encoded.tensors["weight"])


def test_a_target_that_moves_the_weight_too_far_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond the bound of the format, the whole conversion would stop at this layer."""
    observed = observe(low_rank(2))
    kept = choose_encoding(weight_of(), NVFP4, "gptaq", observed, None)
    assert kept.rounding == "gptaq" and (kept.encoded.relative_error or 0.0) > 0.2
    monkeypatch.setattr(type(NVFP4), "error_bound", 0.2)
    chosen = choose_encoding(weight_of(), NVFP4, "gptaq", observed, None)
    assert chosen.rounding == "gptq"
    assert "not gptaq: the weight would change by 21%" in chosen.reason


def test_without_hessians_or_rows_it_is_weighted() -> None:
    for settings, reason in (
        ({"moments_budget_bytes": 0}, "no Hessian was collected"),
        ({"rows": 0}, "too few sampled rows"),
    ):
        chosen = choose_encoding(weight_of(), NVFP4, "gptq", observe(low_rank(), **settings), None)
        assert chosen.rounding == "weighted" and reason in chosen.reason
    unseen = choose_encoding(weight_of(), NVFP4, "gptq", None, None)
    assert (unseen.rounding, unseen.error) == ("mse", None)


def test_an_input_that_repeats_needs_another_prompt_to_judge() -> None:
    def draw(seed: int) -> torch.Tensor:
        return low_rank()(seed // 10)  # the same in every call of a run

    chosen = choose_encoding(weight_of(), NVFP4, "gptq", observe(draw, runs=1), None)
    assert chosen.rounding == "weighted" and "another prompt must judge" in chosen.reason
    chosen = choose_encoding(weight_of(), NVFP4, "gptaq", observe(draw, runs=2), None)
    assert chosen.rounding == "gptq"
    assert "not gptaq: its input is the same in every step" in chosen.reason


def test_16_bit_activations_are_judged_as_such() -> None:
    observed = observe(low_rank())
    chosen = choose_encoding(weight_of(), get_format("nvfp4_w4a16"), "gptq", observed, None)
    assert chosen.rounding == "gptq" and chosen.error is not None
    assert chosen.error.w4a16 == pytest.approx(chosen.error.w4a4, rel=1e-6)
    assert chosen.error.runtime_scale is None


def test_layers_of_one_input_share_its_hessian(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = observe(low_rank())
    rule = observed.rule("gptq")
    assert observed.rule("gptq") is rule
    moments = observed.moments
    monkeypatch.setattr(
        type(observed.statistics.moments), "load", lambda _: pytest.fail("loaded twice")
    )
    assert observed.moments is moments


def test_the_report_counts_what_layers_really_got(
    toy: tuple[SafetensorsFile, CalibrationStatistics, Path], tmp_path: Path
) -> None:
    source, statistics, path = toy
    target = tmp_path / "out.safetensors"
    plan = make_plan(get_preset("all").build({}).with_numbers("gptaq"), take_inventory(source))
    report = convert(source, plan, target, statistics=statistics)
    assert sum(report.roundings().values()) == 4
    assert report.roundings().get("gptaq", 0) + report.roundings().get("gptq", 0) >= 2
    assert verify_checkpoint(target, path).problems == ()
    assert all(la.rounding_reason for la in report.layers)


def test_layers_of_one_input_are_encoded_together_and_reported_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """k and v share an input and o between them does not: two Hessians are loaded, not three."""

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k, self.o, self.v = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.o(self.k(x) * self.v(x))

    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([Attention(), Attention()])})
    path = tmp_path / "m.safetensors"
    save_file(model.state_dict(), path)
    collector = ActivationCollector(CollectorSettings(64, moments_budget_bytes=2**28))
    with SafetensorsFile(path) as source, torch.no_grad():
        with collector.observe(model):
            for block in model["blocks"]:  # type: ignore[union-attr]
                for call in range(3):
                    block(low_rank()(call))
        statistics = collector.snapshot(source.fingerprint())
        loads = []
        plain = InputMoments.load
        monkeypatch.setattr(InputMoments, "load", lambda m: loads.append(m) or plain(m))
        plan = make_plan(get_preset("all").build({}).with_numbers("gptq"), take_inventory(source))
        report = convert(source, plan, tmp_path / "out.safetensors", statistics=statistics)
    assert len(loads) == 4
    assert [la.name for la in report.layers] == [la.name for la in plan.layers]
    assert verify_checkpoint(tmp_path / "out.safetensors", path).problems == ()


def test_a_lost_hessian_is_found_before_any_work(
    toy: tuple[SafetensorsFile, CalibrationStatistics, Path], tmp_path: Path
) -> None:
    source, statistics, _ = toy
    save_statistics(statistics, tmp_path / "cal.safetensors")
    loaded = load_statistics(tmp_path / "cal.safetensors")
    for file in moments_folder(tmp_path / "cal.safetensors").iterdir():
        file.write_bytes(file.read_bytes()[:-8])
    plan = make_plan(get_preset("all").build({}), take_inventory(source))
    layers: list[str] = []
    with pytest.raises(CalibrationError, match="cannot read the Hessian"):
        convert(
            source,
            plan,
            tmp_path / "out.safetensors",
            statistics=loaded,
            on_progress=lambda done, total, name: layers.append(name),
        )
    assert not layers and not (tmp_path / "out.safetensors").exists()


def test_a_second_order_rounding_that_no_layer_got_is_a_warning(
    toy: tuple[SafetensorsFile, CalibrationStatistics, Path], tmp_path: Path
) -> None:
    source, _, _ = toy
    plan = make_plan(get_preset("all").build({}).with_numbers("gptaq"), take_inventory(source))
    report = convert(source, plan, tmp_path / "out.safetensors")
    assert report.roundings() == {"mse": 4}
    assert any("no layer got gptaq" in warning for warning in report.warnings)


def test_static_scales_are_compared_with_the_runtimes_own(
    toy: tuple[SafetensorsFile, CalibrationStatistics, Path], tmp_path: Path
) -> None:
    source, statistics, _ = toy
    plan = make_plan(get_preset("all").build({}), take_inventory(source))
    report = convert(source, plan, tmp_path / "out.safetensors", statistics=statistics)
    for layer in report.layers:
        assert layer.output_error_w4a4 is not None
        assert layer.output_error_w4a4 == pytest.approx(layer.output_error_runtime_scale, rel=0.02)
    assert "about equal (the error changes by" in conversion_headline(report)


def test_moments_that_cannot_be_used_leave_the_plain_rounding() -> None:
    """A layer with inputs whose squares overflow must not stop a conversion."""

    def draw(seed: int) -> torch.Tensor:
        return 1e19 * low_rank()(seed)

    for rounding in ("gptq", "gptaq"):
        chosen = choose_encoding(weight_of(), NVFP4, rounding, observe(draw), None)
        assert chosen.rounding == "weighted" and "not finite; calibrate again" in chosen.reason


def test_nothing_is_measured_where_nothing_depends_on_it() -> None:
    observed = observe(low_rank())
    chosen = choose_encoding(weight_of(), NVFP4, "mse", observed, None, measure_outputs=False)
    assert chosen.error is None


@pytest.mark.parametrize(
    ("name", "plain", "unseen"),
    [
        ("int8_rowwise", "weighted", "mse"),
        ("int8_convrot", "weighted", "mse"),
        ("float8_e4m3fn", "weighted", "mse"),
        ("float8_e5m2", "max", "max"),
        ("mxfp8", "max", "max"),
    ],
)
def test_formats_of_8_bits_keep_what_helps_on_held_out_inputs(
    name: str, plain: str, unseen: str
) -> None:
    observed = observe(low_rank())
    fmt = get_format(name)
    before = choose_encoding(weight_of(), fmt, "weighted", observed, None)
    assert before.rounding == plain and before.error is not None
    for rounding in ("gptq", "gptaq"):
        chosen = choose_encoding(weight_of(), fmt, rounding, observed, None)
        assert chosen.rounding == rounding and chosen.error is not None
        assert chosen.error.w4a16 < 0.8 * before.error.w4a16
        assert (chosen.error.w4a4 == chosen.error.w4a16) == (name == "float8_e5m2")
    assert choose_encoding(weight_of(), fmt, "gptq", None, None).rounding == unseen


def test_float8_keeps_weighted_where_feedback_does_not_help() -> None:
    def draw(seed: int) -> torch.Tensor:
        return low_rank()(seed) if seed < 10 else 4 * white(seed)

    observed = observe(draw)
    fmt = get_format("float8_e4m3fn")
    chosen = choose_encoding(weight_of(), fmt, "gptq", observed, None)
    plain = choose_encoding(weight_of(), fmt, "weighted", observed, None)
    assert chosen.rounding == "weighted" and chosen.reason.startswith("weighted, not gptq: error ")
    codes = [c.encoded.tensors["weight"].view(torch.uint8) for c in (chosen, plain)]
    assert torch.equal(*codes)


def test_errors_of_what_is_taken_over_are_of_rounded_inputs_alone() -> None:
    weight = torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(0))
    encoded = NVFP4.encode(weight, get_rounding("max"))
    chosen = taken_over(encoded.tensors, (32, WIDTH), NVFP4, observe(white), None)
    assert chosen.encoded.tensors is encoded.tensors
    assert chosen.error is not None and chosen.error.w4a16 == 0 < chosen.error.w4a4
