"""A process that is killed while converting leaves no partial file as the target."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from safetensors.torch import save_file

CONVERT_FOREVER = """
import sys
from pathlib import Path
import torch
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.planning import Recipe, make_plan, parse_rule_lines, take_inventory
from nvfp4_foundry.quant.sources import open_source

torch.set_num_threads(1)
with open_source(sys.argv[1]) as source:
    recipe = Recipe(rules=parse_rule_lines("*.a = nvfp4\\n*.b = float8_e4m3fn"))
    plan = make_plan(recipe, take_inventory(source))
    print("ready", flush=True)
    while True:
        convert(source, plan, Path(sys.argv[2]), overwrite=True)
        print("done", flush=True)
"""


def test_killed_at_any_moment(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    shape = (1280, 1024)
    tensors = {f"blocks.{i}.{p}.weight": torch.randn(shape) for i in range(8) for p in "abc"}
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, source)
    moments = random.Random(0)
    partials = 0
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", CONVERT_FOREVER, str(source), str(target)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if attempt % 2:  # also once a complete file is there to be replaced
                assert process.stdout.readline() == "done\n"
            time.sleep(moments.uniform(0.05, 0.5))
        finally:
            process.kill()
            process.communicate()
        if attempt % 2:
            assert target.exists()
        if target.exists():
            assert verify_checkpoint(target, source).problems == ()
        partials += len(list(tmp_path.glob(".out.safetensors.*.partial")))
        # a new attempt removes the file of the killed one, so there is at most one
        assert len(list(tmp_path.glob(".*.partial"))) <= 1
    assert partials, "no attempt was killed in the middle of a conversion"
