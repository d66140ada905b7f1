"""Calls of a model and of its blocks, for ``block_reconstruction.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from fidelity_encoder import CALIBRATING, JUDGING, SentenceEncoder, encoder_folder
from nvfp4_foundry.demo import sampling
from nvfp4_foundry.demo.digits import CLASSES, load_task
from nvfp4_foundry.demo.model import TinyWan
from picture_patches import PICTURES, sample_prompts
from sample_tiny_flux import sample as sample_flux
from sentences import draw_sentences
from tiny_flux import TinyFlux
from torch import Tensor, nn

#: Seeds of samplings that neither the calibration nor the comparison uses. The last is held out.
SEEDS = (11, 12, 13, 14, 15, 16)


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a module."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def results(self, module: nn.Module) -> tuple[Tensor, ...]:
        """Call a module, and return its tensors: of the encoder's, the last hidden state alone."""
        result = module(*self.args, **self.kwargs)
        if isinstance(result, Mapping):
            result = next(iter(result.values()))
        return (result,) if isinstance(result, Tensor) else tuple(result)


class _ReachedError(Exception):
    """The model came to the block whose inputs are wanted."""


@torch.no_grad()
def calls_of_block(model: nn.Module, block: nn.Module, calls: Sequence[Call]) -> list[Call]:
    """Return the calls of a block that calls of the model make."""
    if block is model:
        return list(calls)
    with _recording(block, stop=True) as seen:
        for call in calls:
            with suppress(_ReachedError):
                call.results(model)
    return seen


@contextmanager
def _recording(module: nn.Module, *, stop: bool = False) -> Iterator[list[Call]]:
    """Collect the calls of a module; with ``stop``, end each before it computes."""
    seen: list[Call] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(Call(args, kwargs))
        if stop:
            raise _ReachedError

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def demo_calls(model: TinyWan, seed: int, limit: int) -> list[Call]:
    """Return calls of the demo model in samplings of four digits of each class."""
    with _recording(model) as seen:
        sampling.sample(model, torch.arange(40) % CLASSES, seed, cfg=2.0, task=load_task())
    return _shuffled(seen, 64, limit, seed)


def flux_calls(model: TinyFlux, seed: int, limit: int) -> list[Call]:
    """Return calls of the small Flux in samplings of one patch of each picture."""
    with _recording(model) as seen:
        sample_flux(model, sample_prompts(len(PICTURES))[0], seed)
    return _shuffled(seen, 16, limit, seed)


def encoder_calls(model: nn.Module, seed: int, limit: int) -> list[Call]:
    """Return calls of the encoder with a sixth of the sentences of its calibration."""
    texts, _ = draw_sentences(CALIBRATING, JUDGING)
    part = texts[SEEDS.index(seed) :: len(SEEDS)][:limit]
    batches = SentenceEncoder(encoder_folder()).batches(part)
    return [Call(kwargs={"input_ids": tokens}) for _, tokens in batches]


#: Each takes the model, a seed and how many samples to keep at most.
CALLS: Mapping[str, Callable[[Any, int, int], list[Call]]] = {
    "demo": demo_calls,
    "demo-unshifted": demo_calls,
    "flux": flux_calls,
    "encoder": encoder_calls,
}


def _shuffled(calls: Sequence[Call], batch: int, limit: int, seed: int) -> list[Call]:
    """Return calls with samples of all steps together, ``limit`` samples at most."""
    whole = [torch.cat(parts) for parts in zip(*(call.args for call in calls), strict=True)]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(whole[0]), generator=generator)[:limit]
    return [Call(tuple(tensor[part] for tensor in whole)) for part in order.split(batch)]
