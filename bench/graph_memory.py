"""Measure how much memory *Quantize Model* and *Save* add to a queue run of ComfyUI on the CPU.

Writes a random WAN 2.2 TI2V 5B (10 GB with all 30 blocks), and starts a fresh ComfyUI for each of
two queue runs: calibrate with a sampling of one step; the same, then quantize and save. Prints the
peak of the resident set of each, as counted by the kernel, and that of its anonymous part (without
the pages of mapped files), sampled every 20 ms. Linux only, because it reads ``/proc``. Run
``python bench/graph_memory.py --blocks 30`` in the folder of the pack, with ComfyUI in
``COMFYUI_PATH``.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from nvfp4_foundry.quant.text import text_table
from synthetic_wan import BLOCKS, write_wan

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.comfyui import comfy_server
from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_python import comfyui_path, comfyui_python

MODEL = "wan.safetensors"
#: The most that the two nodes may add, in bytes.
BOUND = 1.5e9
_RUN_SECONDS = 7200
_SAMPLE_SECONDS = 0.02
_STEPS = 1


@dataclass(frozen=True)
class Peak:
    """One queue run: peaks of the resident set and of its anonymous part in bytes, and seconds."""

    name: str
    resident: int
    anonymous: int
    seconds: float


class Watch:
    """Samples the anonymous memory of a process until it is stopped."""

    def __init__(self, pid: int):
        self.anonymous = 0
        self._pid, self._stopped = pid, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Stop, and return the peak of the resident set in bytes."""
        self._stopped.set()
        self._thread.join()
        return memory_of(self._pid, "VmHWM")

    def _sample(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            with contextlib.suppress(OSError):  # the process has ended
                self.anonymous = max(self.anonymous, memory_of(self._pid, "RssAnon"))


def memory_of(pid: int, field: str) -> int:
    """Return a field of ``/proc/PID/status`` in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(rf"^{field}:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def workflow(*, quantize: bool, rounding: str) -> wf.Workflow:
    """Return the workflow; without ``quantize`` it ends with the calibration."""
    made = wf.calibrate(name="memory", file_name="memory_nvfp4")
    wf.inputs(made, "NVFP4FoundryLoadSourceModel")["model_file"] = f"diffusion_models/{MODEL}"
    wf.inputs(made, "NVFP4FoundryCalibrationPrompts")["deck.text"] = "digit 1"
    wf.inputs(made, "KSampler")["steps"] = _STEPS
    preset = wf.inputs(made, "NVFP4FoundrySelectPreset")
    for name in [name for name in preset if name.startswith("preset")]:
        del preset[name]
    preset.update(preset="auto", rounding=rounding)
    if quantize:
        return made
    return wf.without(
        made, "NVFP4FoundryQuantizeModel", "NVFP4FoundrySaveCheckpoint", "NVFP4FoundryPlanLayers",
        "NVFP4FoundrySelectPreset",
    )  # fmt: skip


def measure(name: str, base: Path, flow: wf.Workflow) -> Peak:
    """Run a workflow in a fresh ComfyUI.

    Raises:
        SystemExit: the run failed.
    """
    path = comfyui_path()
    if path is None:
        raise SystemExit("set COMFYUI_PATH to the folder of ComfyUI")
    comfy_server.RUN_SECONDS = _RUN_SECONDS
    # on the CPU, ComfyUI would hold the model in float32, at twice its size
    server = comfy_server.ComfyServer(comfyui_python(path), path, base, options=("--bf16-unet",))
    server.start()
    try:
        watch, begin = Watch(server.pid), time.perf_counter()
        run = server.run(flow)
        seconds = time.perf_counter() - begin
        if run.status != "success":
            raise SystemExit(f"{name}: {run.error}\n{server.log_text()[-2000:]}")
        return Peak(name, watch.stop(), watch.anonymous, seconds)
    finally:
        server.stop()


def main() -> None:
    """Measure, print, and fail if the difference is larger than `BOUND`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="transformer blocks (30)")
    parser.add_argument("--folder", type=Path, help="folder for the large files (a temporary one)")
    parser.add_argument("--rounding", default="weighted")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the server as well
    with tempfile.TemporaryDirectory(prefix="nvfp4-bench-", dir=options.folder) as folder:
        base = comfy_server.make_base(Path(folder) / "base")
        models = base / "models/diffusion_models"
        size = write_wan(models / MODEL, options.blocks)
        peaks = [
            measure(name, base, workflow(quantize=quantize, rounding=options.rounding))
            for name, quantize in (("calibrate", False), ("calibrate, quantize, save", True))
        ]
        written = (models / "memory_nvfp4.safetensors").stat().st_size
    rows = [
        (p.name, f"{p.resident / 1e9:.2f}", f"{p.anonymous / 1e9:.2f}", f"{p.seconds:.0f}")
        for p in peaks
    ]
    print(f"source {size / 1e9:.2f} GB, checkpoint {written / 1e9:.2f} GB")
    print(text_table(("run", "peak GB", "anonymous GB", "s"), rows))
    more = peaks[1].resident - peaks[0].resident
    print(f"quantize and save add {more / 1e9:.2f} GB; the bound is {BOUND / 1e9:.1f} GB")
    raise SystemExit(more > BOUND)


if __name__ == "__main__":
    main()
