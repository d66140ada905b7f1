"""Queue hundreds of workflows in one ComfyUI, and check that nothing grows.

Starts a ComfyUI on the CPU with the tiny model of the tests. Queues these in turn, each time with
another seed or rule so that nothing is cached: calibrate, quantize and save; the same with a
preview; *Quantize File*; a plan; a sensitivity. After each queue run it records the resident set,
threads, open files, files left over, and kept reports. Fails if, over the second half, the resident
set grows by more than `MOST_GROWTH` a queue run beyond ComfyUI's history, which keeps the prompt
and what each node showed, or if any of the others grows at all. Linux only, because it reads
``/proc``. Run ``python bench/soak.py --runs 300`` in the folder of the pack, with ComfyUI in
``COMFYUI_PATH``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression

from nvfp4_foundry.quant.text import text_table

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.comfyui import comfy_server
from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_python import comfyui_path, comfyui_python

#: Bytes of the resident set that a queue run may add over the second half of the runs, beyond those
#: of ComfyUI's history.
MOST_GROWTH = 100_000
_CALIBRATION = "soak"
_TINY = "diffusion_models/tiny_wan.safetensors"
_UNFINISHED = ("*.partial", "*.tmp", "*.part")


@dataclass(frozen=True)
class State:
    """The server after a queue run: bytes, and numbers of what it holds.

    ``left_over`` are unfinished files, and whatever is in the folder for temporary files.
    """

    resident: int
    threads: int
    open_files: int
    left_over: int
    reports: int


def calibrating(number: int) -> wf.Workflow:
    """Calibrate, quantize, save; ``start over`` keeps dated files, so each one goes on."""
    workflow = wf.calibrate(seed=number, name=_CALIBRATION, file_name="soak")
    wf.inputs(workflow, "NVFP4FoundrySaveCheckpoint")["if_exists"] = "overwrite"
    wf.inputs(workflow, "NVFP4FoundryCalibrationPrompts")["deck.text"] = "digit 1"
    return workflow


def previewing(number: int) -> wf.Workflow:
    """The same, sampling the quantized MODEL as well."""
    workflow = calibrating(number)
    sampler = wf.inputs(workflow, "KSampler")
    model = [wf.node(workflow, "NVFP4FoundryQuantizeModel"), 0]
    shifted = wf.add(workflow, "shift", "ModelSamplingSD3", model=model, shift=8.0)
    made = wf.add(workflow, "preview", "KSampler", **{**sampler, "model": [shifted, 0]})
    wf.add(workflow, "shown", "PreviewAny", source=[made, 0])
    return workflow


def converting(number: int) -> wf.Workflow:
    """Quantize File, with another rule each time."""
    workflow = wf.quantize_file()
    wf.inputs(workflow, "NVFP4FoundrySelectPreset").update(
        preset="auto", extra_rules=_rules(number)
    )
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile").update(
        model_file=_TINY, file_name="soak_file", if_exists="overwrite"
    )
    return workflow


def _rules(number: int) -> str:
    """Return a rule that no other number has; a comment would not change the recipe."""
    block, formats = number % 4, ("keep", "bf16", "float8_e4m3fn", "nvfp4")
    lines = [f"blocks.{block}.ffn.0 = {formats[number // 4 % 4]}"]
    return "\n".join(lines * (1 + number // 16))


def planning(number: int) -> wf.Workflow:
    """Plan Layers, with another rule each time."""
    workflow = wf.without(
        calibrating(1), "NVFP4FoundryQuantizeModel", "NVFP4FoundrySaveCheckpoint", "KSampler",
        "NVFP4FoundryCalibrate", "NVFP4FoundryCalibrationResult", "ModelSamplingSD3",
        "CLIPTextEncode", "NVFP4FoundryCalibrationPrompts", "EmptyHunyuanLatentVideo",
        "DigitsTextEncoder",
    )  # fmt: skip
    wf.inputs(workflow, "NVFP4FoundryPlanLayers")["rules"] = _rules(number)
    return workflow


def measuring(number: int) -> wf.Workflow:
    """Measure Sensitivity with the calibration so far, which each calibration changes."""
    workflow: wf.Workflow = {}
    wf.add(workflow, "model", "NVFP4FoundryLoadSourceModel", model_file=_TINY)
    wf.add(workflow, "calibration", "NVFP4FoundryLoadCalibration", name=_CALIBRATION)
    wf.add(
        workflow, "measure", "NVFP4FoundryMeasureSensitivity", model=["model", 0],
        statistics=["calibration", 0], rounding="max", save_as="", formats="nvfp4",
    )  # fmt: skip
    return workflow


KINDS: tuple[Callable[[int], wf.Workflow], ...] = (
    calibrating,
    previewing,
    converting,
    planning,
    measuring,
)


def state_of(server: comfy_server.ComfyServer) -> State:
    """Return what the server holds now."""
    process = Path(f"/proc/{server.pid}")
    status = (process / "status").read_text(encoding="utf-8")
    (resident,), (threads,) = (re.findall(rf"{f}:\s*(\d+)", status) for f in ("VmRSS", "Threads"))
    unfinished = {path for pattern in _UNFINISHED for path in server.base.rglob(pattern)}
    return State(
        resident=int(resident) * 1024,
        threads=int(threads),
        open_files=len(list((process / "fd").iterdir())),
        left_over=len(unfinished) + len(list((server.base / "tmp").iterdir())),
        reports=len(list((server.base / "output/nvfp4_foundry/reports").glob("*"))),
    )


def soak(server: comfy_server.ComfyServer, runs: int, *, forget: bool) -> list[State]:
    """Queue the workflows and return the state after each.

    Raises:
        SystemExit: a queue run failed.
    """
    states = []
    for number in range(runs):
        kind = KINDS[number % len(KINDS)]
        run = server.run(kind(number + 1))
        if run.status != "success":
            raise SystemExit(f"{kind.__name__} {number}: {run.error}")
        if forget:
            server.post("/history", {"clear": True})
        states.append(state_of(server))
    return states


def growth(values: Sequence[float]) -> float:
    """Return how much is added per queue run, over the second half."""
    half = values[len(values) // 2 :]
    return linear_regression(range(len(half)), half).slope


def problems(states: Sequence[State], history: float) -> list[str]:
    """Return what grew; ``history`` is what ComfyUI's holds for each queue run, in bytes."""
    found = []
    if (slope := growth([s.resident for s in states])) > MOST_GROWTH + history:
        found.append(f"the resident set grows by {slope / 1e6:.3f} MB a queue run")
    middle, end = states[len(states) // 2 :][:10], states[-10:]
    for field in ("threads", "open_files", "left_over"):
        # the fewest: a connection of this script may be open as well
        before, after = (min(getattr(s, field) for s in part) for part in (middle, end))
        if after > before:
            found.append(f"{field} grew from {before} to {after}")
    return found


def main() -> None:
    """Soak, print every so often, and fail if something grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write the state after each run to this file")
    parser.add_argument(
        "--forget",
        action="store_true",
        help="clear ComfyUI's history after each run, which keeps what nodes showed",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the server as well
    path = comfyui_path()
    if path is None:
        raise SystemExit("set COMFYUI_PATH to the folder of ComfyUI")
    with tempfile.TemporaryDirectory(prefix="nvfp4-soak-") as folder:
        base = comfy_server.make_base(Path(folder) / "base")
        (base / "tmp").mkdir()
        os.environ["TMPDIR"] = str(base / "tmp")
        server = comfy_server.ComfyServer(comfyui_python(path), path, base)
        server.start()
        begin = time.perf_counter()
        try:
            states = soak(server, options.runs, forget=options.forget)
            history = len(json.dumps(server.get("/history")))
        finally:
            server.stop()
        seconds = time.perf_counter() - begin
        left = sorted(str(path.relative_to(base)) for path in (base / "tmp").rglob("*"))
    if options.json:
        options.json.write_text(json.dumps([asdict(state) for state in states]), encoding="utf-8")
    rows = [
        (str(n + 1), f"{s.resident / 1e6:.1f}", *(str(v) for v in list(asdict(s).values())[1:]))
        for n, s in enumerate(states)
        if (n + 1) % max(1, len(states) // 10) == 0
    ]
    headings = ("run", "resident MB", "threads", "open files", "left over", "reports")
    print(text_table(headings, rows))
    slope = growth([s.resident for s in states])
    print(f"{len(states)} queue runs in {seconds:.0f} s")
    print(f"ComfyUI's history holds {history / len(states) / 1e3:.1f} kB of JSON for each")
    print(f"temporary files: {', '.join(left[:10]) or 'none'}")
    print(f"over the second half, each adds {slope / 1e3:.1f} kB to the resident set")
    found = problems(states, history / len(states))
    print("\n".join(found) or "nothing grew")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
