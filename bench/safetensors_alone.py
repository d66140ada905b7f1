"""Bytes that the library safetensors leaves in use each time that it reads a file.

Loads one file again and again with ``safe_open`` and ``get_tensor``, as ComfyUI loads a model,
without ComfyUI and without the pack, and prints how many bytes in use each load adds. Linux with
glibc only. Run ``PYTHONMALLOC=malloc python bench/safetensors_alone.py [FILE]``; the file is the
demo's model if none is given.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import safetensors

_MODEL = Path(__file__).parents[1] / "demo" / "tiny_wan.safetensors"
_LOADS = 200


class _Heap(ctypes.Structure):
    """The ``struct mallinfo2`` of glibc."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


_LIBC = ctypes.CDLL("libc.so.6")
_LIBC.mallinfo2.restype = _Heap


def _in_use() -> int:
    gc.collect()
    heap = _LIBC.mallinfo2()
    return heap.uordblks + heap.hblkhd


def _load(path: str) -> int:
    """Read every tensor of a file, keep none, and return how many there are."""
    with safetensors.safe_open(path, "pt") as file:
        names = list(file.keys())
        for name in names:
            file.get_tensor(name)
    return len(names)


def main() -> None:
    """Print the bytes that a load adds."""
    path = sys.argv[1] if len(sys.argv) > 1 else str(_MODEL)
    tensors = _load(path)
    for _ in range(4):  # what is kept once
        _load(path)
    before = _in_use()
    for _ in range(_LOADS):
        _load(path)
    each = (_in_use() - before) / _LOADS
    print(f"safetensors {safetensors.__version__}: {each:,.0f} bytes for each load of {tensors}"
          f" tensors, {each / tensors:.0f} a tensor")  # fmt: skip


if __name__ == "__main__":
    main()
