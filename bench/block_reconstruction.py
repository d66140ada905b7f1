"""Train the stored numbers of quantized blocks against the blocks of the 16-bit model.

    python bench/block_reconstruction.py demo --train biases biases+tensor_scales+block_scales

All layers of a block start from an encoding of the pack, and round their inputs natively. Adam
then moves the numbers that are named, so that the block's output comes nearer to that of the
unquantized block. The blocks before it are already trained. A block keeps its start if it is no
better on calls from a seed that the training has not seen. The models are judged like those of
``fidelity.py``, with what a checkpoint would store.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from fidelity_models import ModelResult, Subject
from model_calls import CALLS, SEEDS, Call, calls_of_block
from nvfp4_foundry.quant.conversion.convert import QuantizedModel
from nvfp4_foundry.quant.hardware.emulation import read_input_roundings
from nvfp4_foundry.quant.sources import StateDictSource
from subjects import SUBJECTS
from torch import Tensor, nn
from trained_layers import RATES, SUFFIXES, TrainedLinear, plain_inputs

_HELD_OUT = 256
Results = Sequence[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Training:
    """What is trained, for how many steps of how many ``calls`` each, and towards what.

    ``rates`` are the first steps of Adam by the name of what is trained. With ``paired``, a block
    is to give what the unquantized model gives there, errors of the blocks before included; without
    it, what the unquantized block gives for the same inputs. With ``whole``, all blocks are trained
    at once towards the output of the model. ``plain`` is that of the `Block`.
    """

    rates: Mapping[str, float]
    steps: int
    calls: int
    paired: bool
    whole: bool
    plain: float


@dataclass(frozen=True)
class Block:
    """A block to train, with its calls and the results that these should give.

    ``plain`` says how much its error with 16-bit activations counts beside that with rounded ones.
    """

    module: nn.Module
    calls: Sequence[Call]
    targets: Results
    plain: float

    def part(self, chosen: slice) -> Block:
        """Return the block with some of its calls."""
        return replace(self, calls=self.calls[chosen], targets=self.targets[chosen])

    def squares(self, number: int) -> Tensor:
        """Return the squared error of each tensor of a call's result, [tensors]."""
        rounded = self._squares(number)
        if not self.plain:
            return rounded
        with plain_inputs(self.module):
            return rounded + self.plain * self._squares(number)

    def _squares(self, number: int) -> Tensor:
        results = self.calls[number].results(self.module)
        pairs = zip(results, self.targets[number], strict=True)
        return torch.stack([(result - target).square().sum() for result, target in pairs])

    @torch.no_grad()
    def all_squares(self) -> Tensor:
        """Return the squared errors of all calls together, [tensors]."""
        return torch.stack([self.squares(number) for number in range(len(self.calls))]).sum(0)


def reconstruct(
    subject: Subject,
    checkpoint: QuantizedModel,
    calls: Sequence[Call],
    held_out: Sequence[Call],
    training: Training,
) -> QuantizedModel:
    """Return a checkpoint whose blocks were trained, one after another."""
    model, every = subject.root, [*calls, *held_out]
    tensors = dict(checkpoint.tensors)
    blocks = {"": model} if training.whole else blocks_of(model)
    targets: dict[str, Results] = {}
    if training.paired:
        targets = {name: results_of(model, blocks[name], every) for name in blocks}
    replaced: dict[str, nn.Module] = {}
    try:
        for name, module in blocks.items():
            own = calls_of_block(model, module, every)
            wanted = targets.pop(name, None) or results_of(module, module, own)
            layers = trained_layers(model, name, checkpoint)
            for layer, trained in layers.items():
                replaced[layer] = model.get_submodule(layer)
                model.set_submodule(layer, trained)
            block, count = Block(module, own, wanted, training.plain), len(calls)
            started = time.monotonic()
            ratio = train(block.part(slice(count)), block.part(slice(count, None)), training)
            took = time.monotonic() - started
            print(f"    {name or 'the model'}: held out {ratio:.3f}, {took:.0f} s", flush=True)
            for layer, trained in layers.items():
                stored = trained.stored(tensors[f"{layer}.bias"].dtype)
                tensors.update({f"{layer}.{suffix}": stored[suffix] for suffix in SUFFIXES})
    finally:
        for layer, original in replaced.items():
            model.set_submodule(layer, original)
    return replace(checkpoint, tensors=tensors)


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules in the lists of a model, by name, in their order."""
    return {
        f"{name}.{number}": block
        for name, several in model.named_modules()
        if isinstance(several, nn.ModuleList)
        for number, block in enumerate(several)
    }


@torch.no_grad()
def results_of(model: nn.Module, block: nn.Module, calls: Sequence[Call]) -> Results:
    """Return what a block gives in calls of the model."""
    return [call.results(block) for call in calls_of_block(model, block, calls)]


def trained_layers(
    model: nn.Module, block: str, checkpoint: QuantizedModel
) -> dict[str, TrainedLinear]:
    """Return what takes the place of the quantized layers of a block, by name."""
    source = StateDictSource(checkpoint.tensors, metadata=checkpoint.metadata)
    layers = {}
    for name, rounding in read_input_roundings(source).items():
        if block and not name.startswith(f"{block}."):
            continue
        stored = {suffix: checkpoint.tensors[f"{name}.{suffix}"] for suffix in SUFFIXES}
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        shape = (linear.out_features, linear.in_features)
        layers[name] = TrainedLinear(shape, stored, rounding)
    return layers


def train(block: Block, held_out: Block, training: Training) -> float:
    """Train a block, and return its squared error on held-out calls, as a ratio to the start.

    Every tensor of the result counts by its own error at the start. A block that is no better than
    its start is put back.
    """
    before = held_out.all_squares()
    first = {name: tensor.clone() for name, tensor in block.module.state_dict().items()}
    block.module.requires_grad_(False)
    parameters = dict(block.module.named_parameters())
    groups = [
        {"params": [p for name, p in parameters.items() if name.endswith(f".{kind}")], "lr": rate}
        for kind, rate in training.rates.items()
    ]
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, training.steps)
    order = random.Random(0)
    for _ in range(training.steps):
        adam.zero_grad()
        for _ in range(training.calls):
            (block.squares(order.randrange(len(block.calls))) / before).mean().backward()
        adam.step()
        schedule.step()
    block.module.requires_grad_(False)
    ratio = float((held_out.all_squares() / before).mean())
    if ratio >= 1:
        block.module.load_state_dict(first)
    return ratio


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Train the stored numbers of quantized blocks.")
    parser.add_argument("model", choices=CALLS)
    parser.add_argument("--preset", default="all", help="all for all layers in blocks")
    parser.add_argument("--start", nargs="+", default=["gptq"], help="roundings to start from")
    parser.add_argument(
        "--train",
        nargs="+",
        default=["biases+tensor_scales+block_scales"],
        metavar="KIND+KIND",
        help=f"what to train together, of {', '.join(RATES)}",
    )
    parser.add_argument("--steps", type=int, default=250, help="steps of Adam for each block")
    parser.add_argument("--calls", type=int, default=1, help="calls for each step")
    parser.add_argument("--samples", type=int, default=800, help="samples from each of five seeds")
    parser.add_argument(
        "--same-inputs", action="store_true", help="do not correct errors of the blocks before"
    )
    parser.add_argument("--whole", action="store_true", help="train all blocks at once")
    parser.add_argument(
        "--plain", type=float, default=0.0, help="weight of the error with 16-bit activations"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="factor of the steps of Adam")
    return parser.parse_args()


def main() -> None:
    """Print the errors of a model before and after, and their ratios to those of `max`."""
    options = parse_arguments()
    with SUBJECTS[options.model]() as subject:
        subject.root.requires_grad_(False)
        draw = CALLS[options.model]
        calls = [call for seed in SEEDS[:-1] for call in draw(subject.root, seed, options.samples)]
        held_out = draw(subject.root, SEEDS[-1], _HELD_OUT)
        base = measured(subject, "max", subject.quantize(subject.plan(options.preset, "max")))
        for start in options.start:
            checkpoint = subject.quantize(subject.plan(options.preset, start))
            measured(subject, start, checkpoint, base)
            for kinds in options.train:
                rates = {kind: RATES[kind] * options.rate for kind in kinds.split("+")}
                training = Training(
                    rates,
                    options.steps,
                    options.calls,
                    paired=not options.same_inputs,
                    whole=options.whole,
                    plain=options.plain,
                )
                trained = reconstruct(subject, checkpoint, calls, held_out, training)
                measured(subject, f"{start}, {kinds}", trained, base)


def measured(
    subject: Subject, title: str, checkpoint: QuantizedModel, base: ModelResult | None = None
) -> ModelResult:
    """Measure a checkpoint, and print its squared errors as ratios to ``base``."""
    result = subject.measure(title, checkpoint)
    base = base or result
    typical = [ratio for ratio, _ in result.typical_ratios(base)]
    print(
        f"{title}: W4A16 {result.w4a16 / base.w4a16:.3f}, typical {typical[0]:.3f}; "
        f"W4A4 {result.w4a4 / base.w4a4:.3f}, typical {typical[1]:.3f}",
        flush=True,
    )
    return result


if __name__ == "__main__":
    main()
