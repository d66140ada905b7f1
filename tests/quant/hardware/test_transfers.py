"""Copies through two buffers, on a device whose copies happen as late as they may."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.hardware import transfers
from nvfp4_foundry.quant.hardware.transfers import Transfers

CPU = torch.device("cpu")


class LateLane:
    """A stream that does nothing before somebody waits for it."""

    def __init__(self) -> None:
        self.begun: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.buffers = 0
        self.followed = False

    def pinned(self, size: int) -> torch.Tensor:
        self.buffers += 1
        return torch.zeros(size, dtype=torch.uint8)

    def empty(self, like: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(like)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self.begun.append((target, source))

    def event(self) -> Waiting:
        return Waiting(self, len(self.begun))

    def follow(self) -> None:
        self.followed = True

    def release(self, tensor: torch.Tensor) -> None:
        self.run(len(self.begun))

    def run(self, count: int) -> None:
        for target, source in self.begun[:count]:
            target.copy_(source)
        self.begun[:count] = [(t, t) for t, _ in self.begun[:count]]


class Waiting:
    """The point after so many copies."""

    def __init__(self, lane: LateLane, count: int) -> None:
        self.lane, self.count = lane, count

    def synchronize(self) -> None:
        self.lane.run(self.count)


class OnDevice(torch.Tensor):
    """A tensor that says it is elsewhere."""

    @property
    def device(self) -> torch.device:
        return torch.device("meta")


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "_BUFFER_BYTES", 64)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 32, 33, 160, 1000])
def test_uploads_arrive_whole(count: int) -> None:
    lane = LateLane()
    moves = Transfers(CPU, up=lane)
    for seed in range(3):  # later ones use the same buffers
        values = torch.randn(count, generator=torch.Generator().manual_seed(seed))
        sent = moves.upload(values)
        assert torch.equal(moves.arrived(sent), values)
    assert lane.buffers == 2


@pytest.mark.parametrize("count", [1, 16, 17, 32, 33, 160, 1000])
def test_downloads_arrive_whole(count: int) -> None:
    lane = LateLane()
    moves = Transfers(CPU, down=lane)
    values = {name: torch.randn(count) for name in "abc"}
    results = moves.computed({n: v.as_subclass(OnDevice) for n, v in values.items()})
    assert lane.followed
    found = dict(moves.download(results))
    assert all(torch.equal(found[name], value) for name, value in values.items())
    assert lane.buffers == 2


def test_shapes_and_dtypes_stay() -> None:
    moves = Transfers(CPU, up=LateLane(), down=LateLane())
    for values in (torch.tensor(1.5), torch.zeros(0, 4), torch.randn(5, 7).bfloat16().t()):
        sent = moves.arrived(moves.upload(values))
        assert sent.dtype == values.dtype and torch.equal(sent, values)
        results = moves.computed({"": sent.as_subclass(OnDevice)})
        back = dict(moves.download(results))[""]
        assert back.dtype == values.dtype and torch.equal(back, values)


def test_a_cpu_copies_nothing() -> None:
    moves, values = Transfers(CPU), torch.randn(4)
    assert moves.arrived(moves.upload(values)) is values
    assert dict(moves.download({"": values}))[""] is values
