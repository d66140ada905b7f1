"""Measures what ComfyUI waits for at its start: the pack, its nodes and their schemas.

``python start_up.py RESULT.json COMPILED``. The result holds the processor seconds and the names of
the packages that ComfyUI had not imported itself. Python keeps the pack's compiled modules in the
folder ``COMPILED``, so a second run finds them there, as a second start of ComfyUI would. Runs in
ComfyUI's Python with ComfyUI's folder as ``PYTHONPATH``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

result_path, compiled = Path(sys.argv[1]), sys.argv[2]
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.sd  # noqa: E402
import execution  # noqa: E402, F401
import server  # noqa: E402, F401
from foundry_package import import_foundry  # noqa: E402

import nodes  # noqa: E402, F401


async def schemas() -> list[Any]:
    """Return the schemas of all nodes, as ComfyUI asks for them."""
    extension = await sys.modules["nvfp4_foundry"].comfy_entrypoint()
    return [node.GET_SCHEMA() for node in await extension.get_node_list()]


if __name__ == "__main__":
    sys.pycache_prefix, sys.dont_write_bytecode = compiled, False
    before, start = set(sys.modules), time.process_time()
    import_foundry()
    found = asyncio.run(schemas())
    seconds = time.process_time() - start
    packages = {name.partition(".")[0] for name in set(sys.modules) - before}
    known = {name.partition(".")[0] for name in before}
    result = {"seconds": seconds, "nodes": len(found), "packages": sorted(packages - known)}
    result_path.write_text(json.dumps(result))
