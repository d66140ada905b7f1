"""Copy weights to a GPU and results back while it computes.

A copy from ordinary memory makes the host wait, and the GPU cannot compute meanwhile. Here a copy
goes through two pinned buffers on a stream of its own: while the GPU reads one, the host fills the
other. On a CPU nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch

# Large enough for the full speed of the bus, and small enough to pin on any machine.
_BUFFER_BYTES = 32 << 20


class Event(Protocol):
    """A point in the work of a stream."""

    def synchronize(self) -> None:
        """Wait until the stream has passed it."""
        ...


class Lane(Protocol):
    """One direction of copies, on a stream of its own."""

    def pinned(self, size: int) -> torch.Tensor:
        """Return a uint8 buffer ``[size]`` in pinned memory, or in ordinary memory without."""
        ...

    def empty(self, like: torch.Tensor) -> torch.Tensor:
        """Return device memory for a copy of ``like``, to be filled on this stream."""
        ...

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Begin a copy on this stream."""
        ...

    def event(self) -> Event:
        """Return the point after everything that was begun on this stream."""
        ...

    def follow(self) -> None:
        """Let this stream wait for what the current one has begun."""
        ...

    def release(self, tensor: torch.Tensor) -> None:
        """Let the current stream wait for this one, and then use ``tensor``."""
        ...


class Transfers:
    """Copies between the host and one device.

    One thread uploads, one computes, and one downloads.
    """

    def __init__(self, device: torch.device, up: Lane | None = None, down: Lane | None = None):
        """Copy to and from ``device``; the lanes are CUDA's unless others are given."""
        self._device = device
        if device.type == "cuda" and torch.cuda.is_available():
            up, down = up or CudaLane(device), down or CudaLane(device)
        self._up = None if up is None else _Staging(up)
        self._down = None if down is None else _Staging(down)

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """Begin to copy a host tensor to the device. `arrived` must get it before it is used."""
        if self._up is None or not tensor.numel() or tensor.device.type != "cpu":
            return tensor
        return self._up.to_device(tensor.contiguous())

    def arrived(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return an uploaded tensor for the computation in this thread, which waits for it.

        Call it before the next upload begins, or the computation waits for that one, too.
        """
        if self._up is None or not tensor.numel():
            return tensor.to(self._device)
        self._up.lane.release(tensor)
        return tensor

    def computed(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return results of this thread for `download`, which may follow in another thread."""
        found = {name: tensor.contiguous() for name, tensor in tensors.items()}
        if self._down is not None:
            self._down.lane.follow()
        return found

    def download(self, tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield what `computed` returned on the host, one tensor at a time."""
        for name, tensor in tensors.items():
            if self._down is None or tensor.device.type == "cpu" or not tensor.numel():
                yield name, tensor.cpu()
            else:
                yield name, self._down.to_host(tensor)


class _Staging:
    """Two buffers, of which one is copied to or from the device while the host uses the other."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._buffers: list[torch.Tensor] = []
        self._events: list[Event | None] = [None, None]

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        result = self.lane.empty(tensor)
        source, target = _bytes(tensor), _bytes(result)
        for number, piece in enumerate(self._pieces(len(source))):
            buffer = self._free(number % 2)[: piece.stop - piece.start]
            buffer.copy_(source[piece])
            self.lane.copy(target[piece], buffer)
            self._events[number % 2] = self.lane.event()
        return result

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        result = torch.empty(tensor.shape, dtype=tensor.dtype)
        source, target = _bytes(tensor), _bytes(result)
        begun: tuple[int, slice] | None = None
        for number, piece in enumerate(self._pieces(len(source))):
            buffer = self._free(number % 2)
            self.lane.copy(buffer[: piece.stop - piece.start], source[piece])
            self._events[number % 2] = self.lane.event()
            self._take(begun, target)
            begun = number % 2, piece
        self._take(begun, target)
        return result

    def _take(self, begun: tuple[int, slice] | None, target: torch.Tensor) -> None:
        """Copy a piece from its buffer to its place, once the device has filled it."""
        if begun is not None:
            index, piece = begun
            target[piece].copy_(self._free(index)[: piece.stop - piece.start])

    def _free(self, index: int) -> torch.Tensor:
        """Return a buffer that the device does not use any more."""
        if not self._buffers:
            self._buffers = [self.lane.pinned(_BUFFER_BYTES) for _ in range(2)]
        event, self._events[index] = self._events[index], None
        if event is not None:
            event.synchronize()
        return self._buffers[index]

    @staticmethod
    def _pieces(size: int) -> Iterator[slice]:
        for start in range(0, size, _BUFFER_BYTES):
            yield slice(start, min(start + _BUFFER_BYTES, size))


class CudaLane:
    """A `Lane` on a stream of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        """Make a stream on ``device``."""
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def pinned(self, size: int) -> torch.Tensor:
        """Return a pinned buffer, or an ordinary one if the system pins no more memory."""
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError:  # the same copies, but the host waits for each
            return torch.empty(size, dtype=torch.uint8)

    def empty(self, like: torch.Tensor) -> torch.Tensor:
        """Return memory that belongs to this stream."""
        with torch.cuda.stream(self._stream):
            return torch.empty(like.shape, dtype=like.dtype, device=self._device)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Begin a copy without waiting for it."""
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def event(self) -> Event:
        """Record an event of CUDA."""
        event = torch.cuda.Event()
        event.record(self._stream)
        return event

    def follow(self) -> None:
        """Wait on the device for the current stream of this thread."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def release(self, tensor: torch.Tensor) -> None:
        """Keep the memory until the current stream is done with it, too."""
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        tensor.record_stream(current)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(-1).view(torch.uint8)
