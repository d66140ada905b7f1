"""Blocks are trained towards the results that are wanted, and put back if that does not help."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from block_reconstruction import Block, Training, blocks_of, train
from model_calls import Call, calls_of_block
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.hardware.emulation import InputRounding
from nvfp4_foundry.quant.rounding import MaxRule
from torch import nn
from trained_layers import TrainedLinear

SIZE = 64
NVFP4 = get_format("nvfp4")


def training(*kinds: str, rate: float = 0.01) -> Training:
    return Training(dict.fromkeys(kinds, rate), 20, 1, paired=True, whole=False, plain=1.0)


def quantized(linear: nn.Linear) -> nn.Sequential:
    stored = NVFP4.encode(linear.weight.detach(), MaxRule()).tensors
    bias = linear.bias.detach() + 0.3
    rounding = InputRounding(NVFP4, 0.002)
    return nn.Sequential(TrainedLinear((SIZE, SIZE), {**stored, "bias": bias}, rounding))


def block_with(linear: nn.Linear, count: int, targets: Sequence[torch.Tensor] = ()) -> Block:
    calls = [Call((torch.randn(16, SIZE),)) for _ in range(count)]
    wanted = [(target,) for target in targets] or [call.results(linear) for call in calls]
    detached = [tuple(tensor.detach() for tensor in results) for results in wanted]
    return Block(quantized(linear), calls, detached, plain=1.0)


def test_only_what_is_named_is_trained() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(SIZE, SIZE)
    block = block_with(linear, 8)
    before = {name: tensor.clone() for name, tensor in block.module.state_dict().items()}
    ratio = train(block.part(slice(6)), block.part(slice(6, None)), training("biases"))
    assert ratio < 0.8
    moved = {name for name, now in block.module.state_dict().items() if (now != before[name]).any()}
    assert moved == {"0.biases"}


def test_a_block_that_gets_no_better_on_held_out_calls_is_put_back() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(SIZE, SIZE)
    misleading = block_with(linear, 4, [torch.full((16, SIZE), 9.0)] * 4)
    judged = block_with(linear, 4)
    judged = Block(misleading.module, judged.calls, judged.targets, plain=0.0)
    before = {name: tensor.clone() for name, tensor in judged.module.state_dict().items()}
    assert train(misleading, judged, training("biases", "codes", rate=0.2)) > 1
    assert all((now == before[name]).all() for name, now in judged.module.state_dict().items())


def test_the_calls_of_a_block_have_what_the_blocks_before_it_give() -> None:
    model = nn.Sequential(nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]))
    blocks = blocks_of(model)
    assert list(blocks) == ["0.0", "0.1"]

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in blocks.values():
                x = block(x)
            return x

    x = torch.randn(3, 4)
    (call,) = calls_of_block(Chain(), blocks["0.1"], [Call((x,))])
    assert torch.equal(call.args[0], blocks["0.0"](x))
