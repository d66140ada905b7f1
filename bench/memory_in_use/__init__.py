"""A pack for the ComfyUI of `bench/soak.py`: a route that tells how many bytes are in use.

It also tells how many tensors ComfyUI has read from files.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Any

import comfy.utils
from aiohttp import web
from server import PromptServer


class _Heap(ctypes.Structure):
    """The ``struct mallinfo2`` of glibc, over all its arenas."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


_LIBC = ctypes.CDLL("libc.so.6")
_LIBC.mallinfo2.restype = _Heap
_load = comfy.utils.load_torch_file
_tensors_read = 0


def _counted(*given: Any, **named: Any) -> Any:
    """Load a file as ComfyUI does, and count its tensors."""
    global _tensors_read
    loaded = _load(*given, **named)
    _tensors_read += len(loaded[0] if isinstance(loaded, tuple) else loaded)
    return loaded


comfy.utils.load_torch_file = _counted


async def _in_use(request: web.Request) -> web.Response:
    """Return the bytes that are allocated and not freed, after a collection of cycles; and tensors.

    With ``PYTHONMALLOC=malloc`` the objects of Python are among them. ``?trim`` returns free pages
    to the system first.
    """
    gc.collect()
    if "trim" in request.query:
        _LIBC.malloc_trim(0)
    heap = _LIBC.mallinfo2()
    return web.json_response({"in_use": heap.uordblks + heap.hblkhd, "tensors_read": _tensors_read})


PromptServer.instance.routes.get("/soak/in_use")(_in_use)
NODE_CLASS_MAPPINGS = {}
