"""Whole models for the fidelity bench: the trained demo model and a small random Qwen-Image.

``subjects.py`` lists them with those of the other files.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import torch
from nvfp4_foundry.demo import sampling
from nvfp4_foundry.demo.digits import CLASSES, DigitsTask, load_task
from nvfp4_foundry.demo.judge import load_judge
from nvfp4_foundry.demo.model import MODEL_PATH, TinyWan, load_model
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
)
from nvfp4_foundry.quant.checkpoint.decoded import decoded_tensors
from nvfp4_foundry.quant.conversion.convert import QuantizedModel, quantize_to_memory
from nvfp4_foundry.quant.derive import MIX_FORMATS, mix_plan, rival_mixes
from nvfp4_foundry.quant.hardware.emulation import emulate_native_product, read_input_roundings
from nvfp4_foundry.quant.planning import Plan, get_preset, make_plan, take_inventory
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity
from nvfp4_foundry.quant.sensitivity.measure import QUANTIZED_FORMATS, measure_sensitivity
from nvfp4_foundry.quant.sensitivity.probe import SAMPLED, LatentProbe
from nvfp4_foundry.quant.sensitivity.probe_order import STOP_BELOW
from nvfp4_foundry.quant.sources import StateDictSource, TensorSource, open_source
from tiny_qwen import draw_calls, new_model

GUIDANCE, STEPS = 2.0, 20
_CALIBRATION_SEEDS = range(1, 7)
_PROBED_SEEDS = (1, 2)
_COMPARISON_SEED = 1000
_BATCH = 100
#: By default every token counts for the second moments.
COLLECTING = CollectorSettings(moments_budget_bytes=2**30, moments_tokens_per_channel=1e9)
#: Steps of a short sampling, as in *Probe Latent Shift*.
PROBED_STEPS = 3
#: The rounding of mixes, and of the presets that they are compared with.
MIX_ROUNDING = "gptaq"
#: A ComfyUI that loads all formats of the bench.
NEWER = "0.33"


@dataclass(frozen=True)
class ModelResult:
    """One quantized model: its size, its relative squared errors, and the share of correct digits.

    Errors are relative to the squared reference. ``by_sample`` are those of each sample relative
    to its own square, [samples], W4A16 then W4A4.
    """

    title: str
    megabytes: float
    w4a16: float
    w4a4: float
    accuracy: float | None
    by_sample: tuple[torch.Tensor, torch.Tensor]

    def typical_ratios(self, base: ModelResult) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return `typical_ratio` to another result, W4A16 then W4A4."""
        weight_only, both = map(typical_ratio, self.by_sample, base.by_sample)
        return weight_only, both


@dataclass(frozen=True)
class Subject:
    """A calibrated model with its source, and functions to run it and to compare the results.

    ``probed`` takes a number of steps, and returns what to probe: sigmas, and functions that return
    results.
    """

    root: torch.nn.Module
    source: TensorSource
    statistics: CalibrationStatistics
    run: Callable[[], torch.Tensor]
    reference: torch.Tensor
    probed: Callable[[int], Sequence[tuple[float, Callable[[], torch.Tensor]]]]
    accuracy: Callable[[torch.Tensor], float] | None = None

    def plan(self, preset: str, rounding: str, **settings: int | str) -> Plan:
        """Return a preset's plan. With ``max``, biases stay as they are, as in other tools.

        The plan may use formats of newer ComfyUIs.
        """
        recipe = get_preset(preset).build(settings).with_numbers(rounding).for_comfyui(NEWER)
        return make_plan(recipe, take_inventory(self.source))

    def quantize(self, plan: Plan, *, static: bool = True) -> QuantizedModel:
        """Quantize the model. Without ``static``, the runtime chooses the activation scales."""
        if not static:
            recipe = plan.recipe.with_numbers(input_scale="dynamic")
            plan = make_plan(recipe, take_inventory(self.source))
        return quantize_to_memory(self.source, plan, statistics=self.statistics)

    @contextmanager
    def rounding_inputs(self, checkpoint: QuantizedModel) -> Iterator[None]:
        """Let the model round its inputs like the layers of a checkpoint on Blackwell."""
        stored = StateDictSource(checkpoint.tensors, metadata=checkpoint.metadata)
        with emulate_native_product(self.root, read_input_roundings(stored)):
            yield

    @property
    def reference_accuracy(self) -> float:
        """The share of correct digits of the unquantized model; NaN without a judge."""
        return self.accuracy(self.reference) if self.accuracy else float("nan")

    def squared_error(self, result: torch.Tensor) -> float:
        """Return the squared error of a result, relative to the squared reference."""
        return float((result - self.reference).square().mean() / self.reference.square().mean())

    def errors_by_sample(self, result: torch.Tensor) -> torch.Tensor:
        """Return the squared error of each sample relative to its own square, [samples]."""
        errors = (result - self.reference).flatten(1).square().sum(dim=1)
        return errors / self.reference.flatten(1).square().sum(dim=1)

    def measure(self, title: str, checkpoint: QuantizedModel) -> ModelResult:
        """Run the quantized model, and compare it with the unquantized model at equal noise."""
        with torch.no_grad(), _weights_of(self.root, checkpoint):
            weight_only = self.run()
            with self.rounding_inputs(checkpoint):
                both = self.run()
        return ModelResult(
            title,
            sum(tensor.nbytes for tensor in checkpoint.tensors.values()) / 1e6,
            self.squared_error(weight_only),
            self.squared_error(both),
            self.accuracy(both) if self.accuracy else None,
            (self.errors_by_sample(weight_only), self.errors_by_sample(both)),
        )

    def layer_errors(self, plan: Plan) -> dict[str, float]:
        """Return the W4A4 output error of every quantized layer on held-out inputs."""
        report = self.quantize(plan).report
        return {
            layer.name: layer.output_error_w4a4
            for layer in report.layers
            if layer.output_error_w4a4 is not None
        }

    def floor(self, preset: str = "all") -> float:
        """Return the squared error with exact weights and the rounded inputs of a preset."""
        checkpoint = self.quantize(self.plan(preset, "max"))
        with torch.no_grad(), self.rounding_inputs(checkpoint):
            return self.squared_error(self.run())

    def mixed(self, base: Plan) -> Plan:
        """Return the mix at the size of ``base``, from a probed sensitivity."""
        formats = [name for name in MIX_FORMATS if name in QUANTIZED_FORMATS]
        sensitivity = measure_sensitivity(
            self.source, self.statistics, formats, rounding=base.recipe.rounding
        )
        probe = LatentProbe(
            self.source,
            sensitivity,
            formats=formats,
            statistics=self.statistics,
            plan=base,
            stop_below=STOP_BELOW,
        )
        self.probe(probe, PROBED_STEPS)
        probed = self.sample_rivals(probe, base, PROBED_STEPS)
        return mix_plan(base, take_inventory(self.source), probed, formats=MIX_FORMATS).plan

    @torch.no_grad()
    def probe(self, probe: LatentProbe, steps: int) -> Sensitivity:
        """Probe the model in samplings of so many steps."""
        for sigma, run in self.probed(steps):
            probe.probe(self.root, run, run(), sigma)
        return probe.result()

    @torch.no_grad()
    def sample_rivals(self, probe: LatentProbe, base: Plan, steps: int) -> Sensitivity:
        """Sample rival mixes whole, after `probe`."""
        rivals = rival_mixes(base, take_inventory(self.source), probe.result())
        for _, run in self.probed(steps):
            probe.sample_whole(self.root, run, run(), rivals)
        return probe.result()


def typical_ratio(own: torch.Tensor, base: torch.Tensor) -> tuple[float, float]:
    """Return the geometric mean of the ratios of paired samples [S], and its standard error.

    Samples of equal noise are compared with each other, and a few samplings that take another turn
    cannot decide the result, as they can for the ratio of the sums.
    """
    logs = (own.double() / base.double()).log()
    mean = math.exp(float(logs.mean()))
    return mean, mean * float(logs.std()) / len(logs) ** 0.5


def run_id(seed: int) -> str:
    """Return a fixed id, because it decides which rows the calibration samples."""
    return uuid.UUID(int=seed).hex


@contextmanager
def _weights_of(root: torch.nn.Module, checkpoint: QuantizedModel) -> Iterator[None]:
    """Let a model compute with the decoded weights of a checkpoint."""
    stored = StateDictSource(checkpoint.tensors, metadata=checkpoint.metadata)
    original = {name: tensor.clone() for name, tensor in root.state_dict().items()}
    decoded: Mapping[str, torch.Tensor] = decoded_tensors(stored)
    root.load_state_dict({name: decoded[name] for name in original})
    try:
        yield
    finally:
        root.load_state_dict(original)


@contextmanager
def _single_thread() -> Iterator[None]:
    """Compute on one thread. With several, the operations of so small a model mostly wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def demo_subject(
    samples: int, shift: float, collecting: CollectorSettings = COLLECTING
) -> Iterator[Subject]:
    """Yield the trained demo model, which samples with this shift (ComfyUI uses 8)."""
    plain = sampling.simple_sigmas

    def shifted(steps: int) -> torch.Tensor:
        return plain(steps, shift)

    with (
        mock.patch.object(sampling, "simple_sigmas", shifted),
        open_source(MODEL_PATH) as source,
        _single_thread(),
    ):
        task, judge, model = load_task(), load_judge(), load_model()
        labels = torch.arange(samples) % CLASSES

        def run() -> torch.Tensor:
            return torch.cat(
                [
                    sampling.sample(model, part, _COMPARISON_SEED + i, STEPS, GUIDANCE, task=task)
                    for i, part in enumerate(labels.split(_BATCH))
                ]
            )

        collector = ActivationCollector(collecting)
        for seed in _CALIBRATION_SEEDS:
            collector.new_run(f"seed {seed}", run_id=run_id(seed))
            with collector.observe(model):
                digits = torch.arange(20) % CLASSES
                sampling.sample(model, digits, seed, STEPS, GUIDANCE, collector.begin_call, task)
        yield Subject(
            model,
            source,
            collector.snapshot(source.fingerprint()),
            run,
            run(),
            lambda steps: [_short_sampling(model, task, seed, steps) for seed in _PROBED_SEEDS],
            lambda latents: judge.accuracy(task.decode(latents), labels),
        )


def _short_sampling(
    model: TinyWan, task: DigitsTask, seed: int, steps: int
) -> tuple[float, Callable[[], torch.Tensor]]:
    """Return a function for a probe that samples each digit in few steps."""
    digits = torch.arange(CLASSES)
    return SAMPLED, lambda: sampling.sample(model, digits, seed, steps, GUIDANCE, task=task)


@contextmanager
def qwen_subject(seed: int = 0, collecting: CollectorSettings = COLLECTING) -> Iterator[Subject]:
    """Yield a small random Qwen-Image. Its results are the velocities of 8 unseen model calls.

    As it cannot sample, each step of a probe is two calls at noise levels of their own.
    """
    model = new_model(seed)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    source = StateDictSource(weights, "a random Qwen-Image")
    collector = ActivationCollector(collecting)
    with torch.no_grad():
        for run_seed in range(4):
            collector.new_run(f"seed {run_seed}", run_id=run_id(run_seed))
            with collector.observe(model):
                for call in draw_calls(16, run_seed):
                    collector.begin_call(float(call[2][0]), [0])
                    model(*call)
        unseen = draw_calls(8, 1000)

        @torch.no_grad()
        def run() -> torch.Tensor:
            return torch.stack([model(*call) for call in unseen])

        def calls(steps: int) -> list[tuple[float, Callable[[], torch.Tensor]]]:
            drawn = draw_calls(16, 0)
            probed = [drawn[number * 16 // (2 * steps)] for number in range(2 * steps)]
            return [(float(args[2][0]), lambda args=args: model(*args)) for args in probed]

        seen = collector.snapshot(source.fingerprint())
        yield Subject(model, source, seen, run, run(), calls)
