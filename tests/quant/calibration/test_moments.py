"""Second moments: exact sums, a bounded budget, run by run, on disk and back."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    LayerStatistics,
    delete_moments,
    describe_budget,
    load_statistics,
    merge,
    moments_folder,
    save_statistics,
)
from nvfp4_foundry.quant.calibration.moment_schedule import ENOUGH_TOKENS, tokens_per_call
from nvfp4_foundry.quant.calibration.moments import (
    InputMoments,
    MomentAccumulator,
    MomentPart,
    moments_bytes,
)
from nvfp4_foundry.quant.errors import CalibrationError
from nvfp4_foundry.quant.fingerprint import ModelFingerprint
from nvfp4_foundry.quant.formats.nvfp4 import NVFP4, round_through_nvfp4

TRUE = torch.tensor(True)
BIG = 2**30


def gathered(*batches: torch.Tensor, run: str = "r", folder: Path | None = None) -> MomentPart:
    accumulator = MomentAccumulator(batches[0].shape[1], torch.device("cpu"))
    for rows in batches:
        accumulator.add(rows, rows.abs().amax(), TRUE)
    part = accumulator.finish(run, folder)
    assert part is not None
    return part


def check(moments: InputMoments, *batches: torch.Tensor) -> None:
    """Compare with plain float64 arithmetic."""
    rounded = torch.cat([NVFP4().emulate_activations(rows, None) for rows in batches]).double()
    x = torch.cat(batches).double()
    loaded, count = moments.load(), len(x)
    assert moments.tokens == loaded.tokens == count
    residual = x - rounded
    expected = {
        "hessian": rounded.T @ rounded / count,
        "residual": residual.T @ rounded / count,
        "residual_energy": residual.square().mean(0),
        "mean": x.mean(0),
        "mean_rounded": rounded.mean(0),
    }
    for name, value in expected.items():
        got = getattr(loaded, name).double()
        tolerance = 2.0**-7 if name == "residual" else 1e-5  # kept as bfloat16
        assert (got - value).abs().max() <= tolerance * value.abs().max(), name
    assert torch.equal(loaded.hessian, loaded.hessian.T)


@pytest.mark.parametrize("width", [32, 1024, 1040])
def test_sums_are_those_of_float64(width: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    batches = [torch.randn(50, width), 3 * torch.randn(20, width)]
    check(InputMoments((gathered(*batches),)), *batches)
    in_file = gathered(*batches, folder=tmp_path / "new")
    assert in_file.tensors is None and in_file.path is not None
    check(InputMoments((in_file,)), *batches)


def test_parts_add_up() -> None:
    torch.manual_seed(1)
    a, b = torch.randn(30, 48), torch.randn(90, 48)
    moments = InputMoments((gathered(a, run="one"), gathered(b, run="two")))
    check(moments, a, b)
    assert moments.runs == {"one", "two"}


def test_rows_with_nan_are_left_out() -> None:
    torch.manual_seed(2)
    rows = torch.randn(10, 32)
    accumulator = MomentAccumulator(32, torch.device("cpu"))
    accumulator.add(rows, rows.abs().amax(), TRUE)
    accumulator.add(rows, torch.tensor(torch.inf), TRUE)
    spoiled = rows.clone()
    spoiled[3, 4] = torch.nan
    accumulator.add(spoiled, rows.abs().amax(), TRUE)
    part = accumulator.finish("r", None)
    assert part is not None and part.tokens == 19 and not part.repeats
    check(InputMoments((part,)), rows, rows[[0, 1, 2, 4, 5, 6, 7, 8, 9]])


def test_a_call_that_repeats_counts_once_and_in_full() -> None:
    """Of the first call four tokens are left, the others were sampled as rows."""
    torch.manual_seed(2)
    rows = torch.randn(10, 32)
    accumulator = MomentAccumulator(32, torch.device("cpu"))
    accumulator.add(rows[:4], rows.abs().amax(), TRUE)
    for _ in range(3):
        accumulator.add(rows, rows.abs().amax(), ~TRUE)
    part = accumulator.finish("r", None)
    assert part is not None and part.tokens == 10 and part.repeats
    amax = rows.abs().amax() / 2688
    seen = round_through_nvfp4(torch.cat([rows[:4], rows]), amax, torch.float32)
    loaded = InputMoments((part,)).load()
    torch.testing.assert_close(loaded.hessian, seen.T @ seen / 14, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loaded.mean_rounded, seen.mean(0), rtol=1e-4, atol=1e-5)


def test_branches_that_take_turns_repeat_each_by_itself() -> None:
    """Guidance in two calls a step: the text of each branch is completed by its own repetition."""
    torch.manual_seed(3)
    texts = {(0,): torch.randn(10, 32), (1,): torch.randn(6, 32)}
    accumulator = MomentAccumulator(32, torch.device("cpu"))
    amax = torch.stack([text.abs().amax() for text in texts.values()]).amax()
    for step in range(4):
        for branches, text in texts.items():
            rows = text if step else text[:3]
            accumulator.add(rows, amax, TRUE if step == 0 else ~TRUE, branches)
    part = accumulator.finish("r", None)
    assert part is not None and part.tokens == 16 and part.repeats
    summed = torch.cat([rows for text in texts.values() for rows in (text[:3], text)])
    mean = InputMoments((part,)).load().mean
    torch.testing.assert_close(mean, summed.mean(0), rtol=1e-4, atol=1e-5)


def test_nothing_usable_is_no_part() -> None:
    rows = torch.full((3, 32), torch.nan)
    empty = MomentAccumulator(32, torch.device("cpu"))
    empty.add(rows, rows.abs().amax(), TRUE)
    assert empty.finish("r", None) is None


Observed = tuple[CalibrationStatistics, dict[str, list[torch.Tensor]]]


@pytest.fixture
def observe(
    tiny_block: Callable, recording: Callable, fingerprint: ModelFingerprint
) -> Callable[..., Observed]:
    """Observe runs of a tiny block: q, k, v share one input of width 16, ffn.2 has one of 40."""

    def run(
        runs: int, collector: ActivationCollector, same: bool = False, seed: int = 0
    ) -> Observed:
        torch.manual_seed(seed)
        block = tiny_block()
        with recording(block) as seen, torch.no_grad():
            for number in range(runs):
                collector.new_run(f"prompt {number}")
                fixed = torch.randn(2, 30, 16)
                with collector.observe(block):
                    for step in range(4):
                        collector.begin_call(1.0 - step / 4, [0, 1])
                        block(fixed if same else torch.randn(2, 30, 16))
        return collector.snapshot(fingerprint), seen

    return run


def test_collected_while_sampling(observe: Callable[..., Observed]) -> None:
    settings = CollectorSettings(rows_per_layer=20, moments_budget_bytes=BIG)
    statistics, seen = observe(1, ActivationCollector(settings))
    layers = statistics.layers
    assert layers["q"].moments is layers["k"].moments is layers["v"].moments
    for name in ("q", "o", "ffn.0", "ffn.2"):
        layer = layers[name]
        assert layer.moments is not None
        # Everything but the tokens that were candidates for the sampled rows.
        kept = {row.numpy().tobytes() for row in layer.rows}
        calls = [x.reshape(-1, x.shape[-1]) for x in seen[name]]
        total = sum(len(x) for x in calls)
        assert total - 120 < layer.moments.tokens <= total - len(kept)
        moments = layer.moments.load()
        rounded = [NVFP4().emulate_activations(x, None) for x in calls]
        wanted = torch.cat(rounded)
        expected = wanted.T @ wanted / len(wanted)
        assert (moments.hessian - expected).norm() < 0.5 * expected.norm()


def test_sampled_rows_and_moments_share_no_token(
    tiny_block: Callable, fingerprint: ModelFingerprint
) -> None:
    """Each token has a channel of its own, so that the Hessian's diagonal names those used."""
    settings = CollectorSettings(rows_per_layer=5, moments_budget_bytes=BIG)
    collector = ActivationCollector(settings)
    layer = torch.nn.Sequential(torch.nn.Linear(64, 16))
    collector.new_run()
    with torch.no_grad(), collector.observe(layer):
        layer(torch.eye(64).unsqueeze(0))
    found = collector.snapshot(fingerprint).layers["0"]
    assert found.moments is not None
    in_moments = set(found.moments.load().hessian.diagonal().nonzero().flatten().tolist())
    in_rows = set(found.rows.argmax(1).tolist())
    assert len(in_rows) == 5 and len(in_moments) == 59
    assert not in_rows & in_moments


def test_second_run_is_held_out_and_rows_know_their_run(
    observe: Callable[..., Observed],
) -> None:
    settings = CollectorSettings(rows_per_layer=180, moments_budget_bytes=BIG)
    statistics, seen = observe(3, ActivationCollector(settings))
    layer = statistics.layers["o"]
    assert layer.moments is not None
    first, second, third = (run.id for run in statistics.runs)
    assert layer.moments.runs == {first, third}
    by_run = [set() for _ in range(3)]
    for index, x in enumerate(seen["o"]):
        by_run[index // 4] |= {row.numpy().tobytes() for row in x.reshape(-1, 16)}
    for row, run in zip(layer.rows, layer.row_run, strict=True):
        assert row.numpy().tobytes() in by_run[run]
    held_out = statistics.held_out_rows("o")
    assert held_out.from_other_runs
    assert all(row.numpy().tobytes() in by_run[1] for row in held_out.rows)
    assert second not in layer.moments.runs


def test_an_input_that_never_changes_counts_once(observe: Callable[..., Observed]) -> None:
    settings = CollectorSettings(rows_per_layer=4, moments_budget_bytes=BIG)
    statistics, _ = observe(1, ActivationCollector(settings), same=True)
    moments = statistics.layers["q"].moments
    assert moments is not None
    assert 60 - 4 <= moments.tokens <= 60  # one call, not four
    assert moments.repeats
    assert not statistics.held_out_rows("q").from_other_runs


def test_the_budget_goes_round(observe: Callable[..., Observed], tmp_path: Path) -> None:
    """Room for one wide or a few narrow inputs at a time: after some runs all have theirs."""
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
    assert {part.path for part in parts} == set(folder.iterdir())
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
    """Inputs of width 16 and 40; with room for the narrow ones only."""
    settings = CollectorSettings(rows_per_layer=4, moments_budget_bytes=2 * moments_bytes(16))
    statistics, _ = observe(1, ActivationCollector(settings))
    text = describe_budget(statistics, settings)
    assert text.startswith("no room for the Hessians of 1 inputs, such as ffn.2: they take up to 1")
    assert "about 2 more runs for the Hessians of 2 inputs" in text
    assert describe_budget(statistics, CollectorSettings()) == ""
    roomy = CollectorSettings(rows_per_layer=4, moments_budget_bytes=BIG)
    assert describe_budget(observe(3, ActivationCollector(roomy))[0], roomy) == ""


def test_no_more_is_gathered_than_is_enough(observe: Callable[..., Observed]) -> None:
    settings = CollectorSettings(
        rows_per_layer=4, moments_budget_bytes=BIG, moments_tokens_per_channel=10.0
    )
    statistics, _ = observe(4, ActivationCollector(settings))
    for name, parts in (("q", 1), ("ffn.2", 2)):  # 240 tokens a run for 16 and for 40 channels
        moments = statistics.layers[name].moments
        assert moments is not None and len(moments.parts) == parts


def test_observed_output_is_bit_equal_and_off_is_off(
    tiny_block: Callable, fingerprint: ModelFingerprint
) -> None:
    torch.manual_seed(3)
    block, x = tiny_block(), torch.randn(2, 9, 16)
    with torch.inference_mode():
        plain = block(x)
        for budget in (0, BIG):
            collector = ActivationCollector(CollectorSettings(4, moments_budget_bytes=budget))
            state = torch.get_rng_state()
            with collector.observe(block):
                assert torch.equal(block(x), plain)
            assert torch.equal(torch.get_rng_state(), state)
            found = [la.moments for la in collector.snapshot(fingerprint).layers.values()]
            assert all(found) if budget else not any(found)


def test_layers_that_part_ways(tiny_block: Callable, fingerprint: ModelFingerprint) -> None:
    """q and k share an input for a run; then k gets another: moments stay true for both."""

    class Pair(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.q(x) + self.k(y)

    torch.manual_seed(4)
    pair, collector = Pair(), ActivationCollector(CollectorSettings(0, moments_budget_bytes=BIG))
    shared, x, y = torch.randn(20, 16), torch.randn(20, 16), 5 * torch.randn(20, 16)
    with torch.no_grad():
        collector.new_run()
        with collector.observe(pair):
            pair(shared, shared)
        collector.new_run()  # held out
        collector.new_run()
        with collector.observe(pair):
            pair(x, y)
    layers = collector.snapshot(fingerprint).layers
    q, k = layers["q"].moments, layers["k"].moments
    assert q is not None and k is not None
    check(q, shared, x) if q.tokens == 40 else check(q, shared)
    check(k, shared, y) if k.tokens == 40 else check(k, shared)
    assert {q.tokens, k.tokens} >= {40}


@pytest.fixture
def saved(observe: Callable[..., Observed], tmp_path: Path) -> Path:
    path = tmp_path / "cal.safetensors"
    settings = CollectorSettings(rows_per_layer=180, moments_budget_bytes=BIG)
    statistics, _ = observe(3, ActivationCollector(settings))
    save_statistics(statistics, path)
    return path


def test_round_trip_beside_the_statistics(saved: Path) -> None:
    loaded = load_statistics(saved)
    folder = moments_folder(saved)
    assert folder == saved.with_name("cal.moments")
    assert len(list(folder.iterdir())) == 4 * 2
    for layer in loaded.inputs.values():
        assert layer.moments is not None and len(layer.moments.parts) == 2
        assert torch.isfinite(layer.moments.load().hessian).all()
    assert loaded.held_out_rows("q").from_other_runs


def test_saving_elsewhere_takes_them_along(saved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other" / "copy.safetensors"
    copy.parent.mkdir()
    save_statistics(load_statistics(saved), copy)
    for file in itertools.chain(moments_folder(saved).iterdir(), [saved]):
        file.unlink()
    moments = load_statistics(copy).layers["q"].moments
    assert moments is not None and moments.load().tokens == moments.tokens


def test_lost_files_leave_less_to_go_by(saved: Path) -> None:
    whole = load_statistics(saved).layers["q"].moments
    assert whole is not None
    victim = whole.parts[0].path
    assert victim is not None
    victim.unlink()
    rest = load_statistics(saved).layers["q"].moments
    assert rest is not None and len(rest.parts) == 1
    with pytest.raises(CalibrationError, match=victim.name):
        whole.load()


def test_damaged_files_are_named(saved: Path) -> None:
    moments = load_statistics(saved).layers["q"].moments
    assert moments is not None
    path = moments.parts[1].path
    assert path is not None
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CalibrationError, match=rf"{path.name}.*[Cc]alibrate again"):
        moments.load()


def test_merging_adds_parts_and_renumbers_rows(
    observe: Callable[..., Observed], saved: Path
) -> None:
    settings = CollectorSettings(rows_per_layer=64, moments_budget_bytes=BIG)
    other, _ = observe(1, ActivationCollector(settings), seed=1)
    mine = load_statistics(saved)
    both, reverse = merge(mine, other), merge(other, mine)
    for name, layer in both.layers.items():
        a, b, c = (s.layers[name].moments for s in (mine, other, reverse))
        assert layer.moments and a and b and c
        assert layer.moments.tokens == a.tokens + b.tokens == c.tokens
        ids = {run.id: index for index, run in enumerate(both.runs)}
        for source in (mine, other):
            original = source.layers[name]
            known = {
                row.numpy().tobytes(): ids[source.runs[run].id]
                for row, run in zip(original.rows, original.row_run, strict=True)
            }
            for row, run in zip(layer.rows, layer.row_run, strict=True):
                assert known.get(row.numpy().tobytes(), run) == run


def test_statistics_of_the_first_version_load(
    saved: Path, sample_statistics: Callable[..., CalibrationStatistics]
) -> None:
    import json

    import safetensors.torch
    from nvfp4_foundry.quant.calibration.storage import METADATA_KEY

    tensors = safetensors.torch.load_file(saved)
    with safetensors.safe_open(saved, "pt") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
    header["version"] = 1
    for entry in header["inputs"].values():
        del entry["moments"]
    tensors = {name: t for name, t in tensors.items() if not name.endswith("row_run")}
    safetensors.torch.save_file(tensors, saved, {METADATA_KEY: json.dumps(header)})
    layer = load_statistics(saved).layers["q"]
    assert layer.moments is None
    np.testing.assert_array_equal(layer.row_run, -1)
    assert not load_statistics(saved).held_out_rows("q").from_other_runs


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(CalibrationError, match="cannot write Hessians"):
        gathered(torch.randn(4, 16), folder=blocked / "inside")
    assert os.listdir(tmp_path) == ["file"]


def test_files_are_as_readable_as_others(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    part = gathered(torch.randn(4, 16), folder=tmp_path / "new")
    assert part.path is not None
    assert part.path.stat().st_mode == plain.stat().st_mode


def test_a_renamed_statistics_file_keeps_its_hessians(saved: Path) -> None:
    renamed = saved.rename(saved.with_name("good.safetensors"))
    lost = gathered(torch.randn(4, 16), folder=moments_folder(saved))  # of no statistics file
    whole = {part for la in load_statistics(renamed).inputs.values() for part in moment_ids(la)}
    assert len(whole) == 8
    delete_moments(saved)
    assert {file.stem for file in moments_folder(saved).iterdir()} == whole and lost.id not in whole
    renamed.unlink()
    delete_moments(saved)
    assert not moments_folder(saved).exists()
    delete_moments(saved)  # again, with nothing there


def moment_ids(layer: LayerStatistics) -> list[str]:
    return [part.id for part in layer.moments.parts] if layer.moments else []


class Fan(torch.nn.Module):
    """Layers that share an input, or get each its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(16, 4) for _ in range(6))

    def forward(self, *inputs: torch.Tensor) -> None:
        for layer, x in zip(self.layers, inputs, strict=True):
            layer(x)


def test_layers_that_part_need_room_of_their_own(fingerprint: ModelFingerprint) -> None:
    """Six layers share an input in the first run and not in the third: the budget still holds."""
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


def test_a_full_disk_leaves_no_tokens_for_the_next_run(
    observe: Callable[..., Observed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written is gone: it must not count as part of a later run."""
    settings = CollectorSettings(0, moments_budget_bytes=BIG, moments_folder=tmp_path / "m")
    collector = ActivationCollector(settings)
    with monkeypatch.context() as patch:
        patch.setattr(MomentPart, "_write", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(CalibrationError, match="disk full"):
            observe(1, collector)
    statistics, _ = observe(2, collector)  # the first of them is held out
    last = statistics.runs[-1].id
    for layer in statistics.inputs.values():
        assert layer.moments is not None and layer.moments.runs == {last}
        assert layer.moments.tokens <= 4 * 2 * 30  # no more than there were in that run


@pytest.mark.parametrize("repeats", [True, False])
def test_another_seed_is_another_run_but_the_same_context(
    fingerprint: ModelFingerprint, repeats: bool
) -> None:
    """What a prompt makes of an input cannot be judged by the same prompt; a latent can."""
    torch.manual_seed(6)
    first, second = torch.randn(2, 50, 32)
    collector = ActivationCollector(CollectorSettings(400, moments_budget_bytes=BIG))
    layer = torch.nn.Sequential(torch.nn.Linear(32, 8))
    for prompt, context in [("one", first)] * 5 + [("two", second)]:  # the sixth is held out
        collector.new_run(prompt)
        with torch.no_grad(), collector.observe(layer):
            for _ in range(16):
                layer(context if repeats else torch.randn(50, 32))
    statistics = collector.snapshot(fingerprint)
    held_out, runs = statistics.held_out_rows("0"), statistics.layers["0"].moments
    assert runs is not None and held_out.from_other_runs
    known = {row.numpy().tobytes() for row in first}
    assert not known & {row.numpy().tobytes() for row in held_out.rows}
    if not repeats:
        assert (
            len(held_out.rows)
            == np.isin(
                statistics.layers["0"].row_run,
                [i for i, run in enumerate(statistics.runs) if run.id not in runs.runs],
            ).sum()
        )
