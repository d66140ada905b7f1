"""A pretended GPU: tensors that say ``cuda`` and compute on the CPU, with a record of the costs.

Every operation runs twice. torch's `FakeTensorMode` runs it on tensors without data and raises
where the devices differ. The CPU then computes the values, so that branches and loops that depend
on values go as they would. What a GPU would do is recorded: kernels, and the places where the host
waits for the device.

Needs a CUDA build of torch, but no GPU.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

GPU = torch.device("cuda", 0)
_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operations that only make another view of the same memory, or new memory without values.
_NO_KERNEL = _words(
    "alias as_strided detach diagonal empty empty_like empty_strided expand lift_fresh new_empty "
    "new_empty_strided permute reshape select slice split split_with_sizes squeeze t transpose "
    "unbind unfold unsqueeze view _unsafe_view _reshape_alias"
)
# Operations after which the host knows what only the device computed: a value, or a shape.
_WAITS = _words(
    "_local_scalar_dense _linalg_check_errors bincount equal histc is_nonzero linalg_cholesky "
    "linalg_inv linalg_solve masked_select multinomial nonzero repeat_interleave unique _unique2 "
    "unique_consecutive unique_dim"
)
_INDEXING = _words("index index_put index_put_ _index_put_impl_")
# What CUDA can do with float8 values: move, convert and fill them.
_OF_FLOAT8 = _words(
    "_to_copy cat clone contiguous copy_ fill_ index index_select new_zeros stack zero_ zeros"
)


class GpuTensor(torch.Tensor):
    """A tensor that says it is on the GPU; ``host`` has its values on the CPU."""

    gpu: ClassVar[PretendedGpu]
    host: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> GpuTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=GPU,
        )
        tensor.host = host
        return tensor

    def data_ptr(self) -> int:
        """Return where the values are; a GPU's tensor has an address too."""
        return self.host.data_ptr()

    def tolist(self) -> Any:
        """Return the values as numbers: one transfer, as on a GPU."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with cls.gpu.running():  # in another thread
            return func(*args, **(kwargs or {}))


class Record:
    """What a GPU had to do.

    ``kernels`` counts operations that start at least one, ``waits`` those for which the host waits,
    by operation and line of code, and ``float8`` those that CUDA may not have for float8 values.
    ``peak`` is the most memory of all tensors that were alive at once, in bytes.
    """

    def __init__(self, held: int = 0) -> None:
        self.kernels: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.float8: Counter[str] = Counter()
        self.held = self.peak = held


class _Memory:
    """The bytes of the tensors that are alive. Views of the same memory count once."""

    def __init__(self) -> None:
        self.held = 0
        self._owners: Counter[int] = Counter()

    def add(self, tensor: GpuTensor) -> None:
        with _disable_current_modes():
            storage = tensor.host.untyped_storage()
            address, size = storage.data_ptr(), storage.nbytes()
        if not self._owners[address]:
            self.held += size
        self._owners[address] += 1
        weakref.finalize(tensor, self._drop, address, size)

    def _drop(self, address: int, size: int) -> None:
        self._owners[address] -= 1
        if not self._owners[address]:
            self.held -= size


class PretendedGpu(TorchDispatchMode):
    """Runs operations on `GpuTensor`, and records them."""

    def __init__(self, package: Path) -> None:
        """Name waits by lines of code in the folder ``package``."""
        super().__init__()
        GpuTensor.gpu = self
        self.record = Record()
        self._memory = _Memory()
        self._fake = FakeTensorMode()
        self._package = str(package)
        self._possible: set[Any] = set()
        self._composite: dict[Any, bool] = {}

    @contextmanager
    def running(self) -> Iterator[PretendedGpu]:
        """Pretend until the block ends."""
        # torch makes tensors for ``cuda`` without a GPU only while it sees a fake mode.
        with self._fake, self:
            yield self

    def fresh_record(self) -> Record:
        """Return a new record, into which everything goes from now on."""
        self.record = Record(self._memory.held)
        return self.record

    def to_gpu(self, tensor: torch.Tensor) -> GpuTensor:
        """Return a copy of a CPU tensor on the GPU, without recording it."""
        with _disable_current_modes():
            return self._on_gpu(tensor.clone())

    def to_cpu(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the values of a tensor, without recording it."""
        return tensor.host if isinstance(tensor, GpuTensor) else tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ == "is_pinned":
            return False
        if func.overloadpacket.__name__ in ("pin_memory", "_pin_memory"):
            return args[0]  # only a driver can pin
        if self._is_composite(func):  # in inference mode they come here as a whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        inputs = _tensors((args, kwargs))
        on_gpu = [t for t in inputs if isinstance(t, GpuTensor)]
        target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if not on_gpu and (target is None or target.type == "cpu"):
            with _disable_current_modes():
                return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        waits = _waits(name, args)
        self._note(name, waits, args, kwargs, on_gpu)
        if not waits:
            self._require_possible(func, args, kwargs)
        host_args, host_kwargs = tree_map_only(GpuTensor, lambda t: t.host, (args, kwargs))
        if target is not None:
            host_kwargs["device"] = torch.device("cpu")
        host_kwargs.pop("pin_memory", None)
        with _disable_current_modes():
            result = func(*host_args, **host_kwargs)
        stays = target is not None and target.type == "cpu"
        stays |= name == "copy_" and not isinstance(args[0], GpuTensor)
        return result if stays else self._wrapped(result, on_gpu)

    def _is_composite(self, func: Any) -> bool:
        if func not in self._composite:
            key = torch._C.DispatchKey.CompositeImplicitAutograd
            self._composite[func] = func.has_kernel_for_dispatch_key(key)
        return self._composite[func]

    def _wrapped(self, result: Any, on_gpu: list[GpuTensor]) -> Any:
        """Return results on the GPU; an operation in place returns the very tensor it changed."""
        known = {id(t.host): t for t in on_gpu}
        return tree_map_only(
            torch.Tensor, lambda t: known[id(t)] if id(t) in known else self._on_gpu(t), result
        )

    def _on_gpu(self, host: torch.Tensor) -> GpuTensor:
        tensor = GpuTensor(host)
        self._memory.add(tensor)
        self.record.peak = max(self.record.peak, self._memory.held)
        return tensor

    def _require_possible(self, func: Any, args: Any, kwargs: Any) -> None:
        """Let torch check devices and dtypes, on tensors without data."""

        def seen(tensor: torch.Tensor) -> str:
            return f"{tensor.size()} {tensor.stride()} {tensor.dtype} {tensor.device}"

        key = func, str(tree_map_only(torch.Tensor, seen, (args, kwargs)))
        if key in self._possible:
            return

        def fake(tensor: torch.Tensor) -> torch.Tensor:
            return torch.empty_strided(
                tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device
            )

        with self._fake:
            args, kwargs = tree_map_only(torch.Tensor, fake, (args, kwargs))
            func(*args, **kwargs)
        self._possible.add(key)

    def _note(self, name: str, waits: bool, args: Any, kwargs: Any, on_gpu: list[Any]) -> None:
        target = kwargs.get("device")
        crosses = name == "_to_copy" and target is not None
        crosses = crosses and torch.device(target).type != args[0].device.type
        crosses |= name == "copy_" and args[0].device.type != args[1].device.type
        if crosses or waits:
            if not kwargs.get("non_blocking"):
                self.record.waits[f"{name} {self._place()}"] += 1
        elif name not in _NO_KERNEL:
            self.record.kernels[name] += 1
        if name not in _NO_KERNEL | _OF_FLOAT8 and any(t.dtype in _FLOAT8 for t in on_gpu):
            self.record.float8[f"{name} {self._place()}"] += 1

    def _place(self) -> str:
        """Return the innermost line of the package that is running."""
        frame = sys._getframe(1)
        while frame is not None and not frame.f_code.co_filename.startswith(self._package):
            frame = frame.f_back
        if frame is None:
            return "outside"
        return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _waits(name: str, args: Any) -> bool:
    if name in _INDEXING:
        return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return name in _WAITS


def _tensors(tree: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    tree_map_only(torch.Tensor, found.append, tree)
    return found
