"""Single layers for the fidelity bench: weights, inputs by prompts and steps, and their errors.

Inputs behave like activations of diffusion transformers. Most energy is in few directions (the k-th
principal deviation decreases as ``1 / (1 + 32 k / K)``), channels differ in energy (log-normal with
deviation 0.5, as in the demo model), some channels may be outliers, and the level differs between
prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    decide_scales,
    parse_policy,
)
from nvfp4_foundry.quant.conversion.choose_encoding import ChosenEncoding, choose_encoding
from nvfp4_foundry.quant.conversion.observed_input import ObservedInputs
from nvfp4_foundry.quant.fingerprint import ModelFingerprint
from nvfp4_foundry.quant.formats.nvfp4 import NVFP4

ROUNDINGS = ("max", "mse", "weighted", "gptq", "gptaq")
_CHANNEL_DEVIATION = 0.5
_STEPS = 8


@dataclass(frozen=True)
class LayerCase:
    """One layer: its name, its size, and how its weight and inputs are drawn.

    ``prompt_spread`` is the ratio of levels between the prompts with the highest and the lowest
    level. ``amax`` is the largest activation at the highest level. With ``gelu``, inputs have
    passed a GELU.
    """

    title: str
    out_features: int
    in_features: int
    heavy_tailed: bool = False
    outliers: int = 0
    amax: float | None = None
    prompt_spread: float = 1.0
    gelu: bool = False


@dataclass(frozen=True)
class LayerResult:
    """The errors of one rounding of one layer.

    ``weight``, ``w4a16`` and ``w4a4`` (with a dynamic activation scale) are squared errors, as
    ratios to the max rule. ``max_w4a4`` is the relative W4A4 error of the max rule.
    ``static_over_dynamic`` is the W4A4 error with the calibrated scale, divided by the one with the
    dynamic scale. ``used`` is the rounding that the pack accepted.
    """

    case: str
    rounding: str
    used: str
    weight: float
    w4a16: float
    w4a4: float
    max_w4a4: float
    static_over_dynamic: float


class PromptInputs:
    """Draws the inputs of a layer by prompt. A seed always gives the same inputs."""

    def __init__(self, case: LayerCase, seed: int) -> None:
        self._case = case
        self._seed = seed
        width = case.in_features
        generator = torch.Generator().manual_seed(seed)
        basis, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
        spectrum = 1.0 / (1.0 + 32.0 * torch.arange(width) / width)
        spectrum /= spectrum.square().mean().sqrt()
        scale = torch.exp(_CHANNEL_DEVIATION * torch.randn(width, generator=generator))
        scale[torch.randperm(width, generator=generator)[: case.outliers]] *= 25.0
        self._mixing = (basis * spectrum).T * scale
        self._level = 1.0
        if case.amax is not None:
            self._level = case.amax / float(self.draw(0, 2048).abs().max())

    def draw(self, prompt: int, tokens: int) -> torch.Tensor:
        """Return ``[tokens, in]`` of one prompt. Prompt 0 has the highest level."""
        case = self._case
        generator = torch.Generator().manual_seed(1_000_003 * (self._seed + 1) + prompt)
        share = float(torch.rand((), generator=generator)) if prompt else 0.0
        x = torch.randn(tokens, case.in_features, generator=generator) @ self._mixing
        if case.gelu:
            x = torch.nn.functional.gelu(x)
        return x * (self._level * case.prompt_spread**-share)


def draw_weight(case: LayerCase, seed: int) -> torch.Tensor:
    """Return a weight ``[out, in]``, Gaussian or Student-t with 4 degrees of freedom."""
    generator = torch.Generator().manual_seed(seed + 77)
    shape = (case.out_features, case.in_features)
    weight = torch.randn(shape, generator=generator)
    if case.heavy_tailed:
        chi_square = sum(torch.randn(shape, generator=generator).square() for _ in range(4))
        weight = weight / (torch.as_tensor(chi_square) / 4).sqrt()
    return 0.02 * weight


def calibrate(inputs: PromptInputs, case: LayerCase, tokens: int) -> CalibrationStatistics:
    """Let the pack's own collector observe the layer with 4 prompts of 8 steps."""
    prompts = 4
    per_call = -(-tokens // (3 * _STEPS))  # the collector holds out one of the four prompts
    layer = torch.nn.Linear(case.in_features, 1)
    root = torch.nn.Sequential()
    root.add_module("layer", layer)
    settings = CollectorSettings(moments_budget_bytes=2**34, moments_tokens_per_channel=1e9)
    collector = ActivationCollector(settings)
    with torch.no_grad():
        for prompt in range(prompts):
            collector.new_run(f"prompt {prompt}")
            drawn = inputs.draw(prompt, per_call * _STEPS)
            with collector.observe(root):
                for step, part in enumerate(drawn.split(per_call)):
                    collector.begin_call(1.0 - step / _STEPS)
                    root(part)
    return collector.snapshot(ModelFingerprint({"layer": (1, case.in_features)}, {}))


def measure_layer(
    case: LayerCase, seed: int, roundings: Sequence[str] = ROUNDINGS, tokens: int = 8192
) -> Iterator[LayerResult]:
    """Quantize one layer by each rounding, and measure it on prompts that were not used."""
    weight, inputs = draw_weight(case, seed), PromptInputs(case, seed)
    statistics = calibrate(inputs, case, tokens)
    observed = ObservedInputs(statistics).of("layer")
    decision = decide_scales(parse_policy("amax"), statistics, ["layer"])["layer"]
    static = decision.scale_for(2688.0)
    held_out = [inputs.draw(prompt, 512) for prompt in range(100, 104)]
    fmt = NVFP4()
    base: tuple[float, float, float] | None = None
    for rounding in roundings:
        chosen = choose_encoding(weight, fmt, rounding, observed, None)
        values = fmt.decode(chosen.encoded.tensors, tuple(weight.shape))
        errors = _squared_errors(weight, values, chosen, held_out, None)
        base = base or errors
        with_static = _squared_errors(weight, values, chosen, held_out, static)
        yield LayerResult(
            case.title,
            rounding,
            chosen.rounding,
            *(error / reference for error, reference in zip(errors, base, strict=True)),
            max_w4a4=base[2] ** 0.5,
            static_over_dynamic=(with_static[2] / errors[2]) ** 0.5,
        )


def _squared_errors(
    weight: torch.Tensor,
    values: torch.Tensor,
    chosen: ChosenEncoding,
    held_out: Sequence[torch.Tensor],
    input_scale: float | None,
) -> tuple[float, float, float]:
    """Return the relative squared errors of the weight, of W4A16 and of W4A4."""
    fmt, norm, weight_only, both = NVFP4(), 0.0, 0.0, 0.0
    for x in held_out:
        exact = x @ weight.T
        seen = fmt.emulate_activations(x, input_scale)
        norm += float(exact.square().sum())
        weight_only += float((x @ values.T - exact).square().sum())
        both += float((seen @ values.T - exact).square().sum())
    assert chosen.encoded.relative_error is not None
    return chosen.encoded.relative_error**2, weight_only / norm, both / norm
