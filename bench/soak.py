"""Queue hundreds of workflows in one ComfyUI, and check that nothing grows.

Starts a ComfyUI on the CPU with the tiny model of the tests. Queues these in turn, each time with
another seed or rule so that nothing is cached: calibrate, quantize and save; the same with a
preview; *Quantize File*; a plan; a sensitivity. Beside it runs a control: a second ComfyUI, which
loads the same packs and gets as many queue runs, in which its own nodes load the model, sample it
and save it. It loads the model as often as the other does, because each load leaves something in
the library that reads it (`bench/safetensors_alone.py`).

After every five queue runs it records, of both, the resident set, the bytes in use, threads, open
files, files left over, kept reports, and how many tensors ComfyUI has read from files. In use is
what was allocated and not freed after a collection of cycles (`bench/memory_in_use`), Python's
objects included. ComfyUI's history is cleared after each queue run, and its size told.

Fails if, over the second half, the bytes in use grow by more than `MOST_KEPT` a queue run beyond
those of the control, the resident set by more than `MOST_GROWTH`, or threads, open files or files
left over at all; or if the control has read fewer than nine in ten, or over eleven in ten, of the
tensors. Linux with glibc only. Run ``python bench/soak.py --runs 300`` in the folder of the pack,
with ComfyUI in ``COMFYUI_PATH``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, linear_regression

from nvfp4_foundry.quant.text import text_table

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.comfyui import comfy_server
from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_python import comfyui_path, comfyui_python

#: Bytes in use that a queue run may add over the second half, beyond the control's. What a node
#: shows of the tiny model takes about 30 kB; if one workflow of the five kept it, that were 6 kB.
MOST_KEPT = 5_000
#: The same for the resident set, which also changes with the gaps between what is in use.
MOST_GROWTH = 100_000
_CALIBRATION_RUNS = 10
# Over the second half, a line needs two means of so many queue runs.
_FEWEST = 4 * _CALIBRATION_RUNS
_TINY = "diffusion_models/tiny_wan.safetensors"
_PACK = Path(__file__).with_name("memory_in_use")
# Two names of one model: with the other name, ComfyUI loads it again.
_NAMES = (Path(_TINY).name, "tiny_wan_again.safetensors")
# Of each five queue runs, so many load the model in ours, and take another name in the control.
_LOADS = 3
_UNFINISHED = ("*.partial", "*.tmp", "*.part")


@dataclass(frozen=True)
class State:
    """The server after some queue runs: bytes, and numbers of what it holds.

    ``left_over`` are unfinished files, and whatever is in the folder for temporary files.
    ``tensors_read`` counts from the start of the server.
    """

    resident: int
    in_use: int
    threads: int
    open_files: int
    left_over: int
    reports: int
    tensors_read: int


def _calibration(number: int) -> str:
    """Return the name of a calibration: another one after some runs, as each run is kept in it."""
    return f"soak{(number - 1) // _CALIBRATION_RUNS}"


def calibrating(number: int) -> wf.Workflow:
    """Calibrate, quantize, save; ``start over`` keeps dated files, so each one goes on."""
    workflow = wf.calibrate(seed=number, name=_calibration(number), file_name="soak")
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
    """Return rules that no other number below 1024 has; a comment would not change the recipe."""
    layers = (
        "blocks.0.ffn.0",
        "blocks.1.ffn.0",
        "blocks.2.ffn.0",
        "blocks.0.ffn.2",
        "blocks.1.ffn.2",
    )
    formats = ("keep", "bf16", "float8_e4m3fn", "nvfp4")
    return "\n".join(f"{layer} = {formats[number // 4**n % 4]}" for n, layer in enumerate(layers))


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
    wf.add(workflow, "calibration", "NVFP4FoundryLoadCalibration", name=_calibration(number))
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


def control(number: int) -> wf.Workflow:
    """What ComfyUI has for the same: load, sample, save the model."""
    loads = number * _LOADS // len(KINDS)
    workflow = wf.sample(_NAMES[loads % len(_NAMES)], seed=number)
    model = [wf.node(workflow, "UNETLoader"), 0]
    wf.add(workflow, "save", "ModelSave", model=model, filename_prefix="control")
    return workflow


class Soaked:
    """A ComfyUI, its states so far, and the bytes of its history as JSON."""

    def __init__(self, kinds: Sequence[Callable[[int], wf.Workflow]], base: Path) -> None:
        """Lay out its folder."""
        path = comfyui_path()
        if path is None:
            raise SystemExit("set COMFYUI_PATH to the folder of ComfyUI")
        self._kinds = kinds
        self.base = comfy_server.make_base(base)
        shutil.copytree(_PACK, base / "custom_nodes" / _PACK.name)
        models = base / "models" / Path(_TINY).parent
        shutil.copyfile(models / _NAMES[0], models / _NAMES[1])
        self.temporary = base / "tmp"
        self.temporary.mkdir()
        self.server = comfy_server.ComfyServer(comfyui_python(path), path, base)
        self.states: list[State] = []
        self.history = 0

    def start(self) -> None:
        """Start it with a folder for temporary files of its own."""
        os.environ["TMPDIR"] = str(self.temporary)
        self.server.start()

    def run(self, number: int) -> None:
        """Queue one workflow.

        Raises:
            SystemExit: it failed.
        """
        kind = self._kinds[number % len(self._kinds)]
        run = self.server.run(kind(number + 1))
        if run.status != "success":
            raise SystemExit(f"{kind.__name__} {number}: {run.error}")
        self.history += len(json.dumps(self.server.get("/history")))
        self.server.post("/history", {"clear": True})

    def record(self) -> None:
        """Add its state."""
        self.states.append(state_of(self.server))


def state_of(server: comfy_server.ComfyServer) -> State:
    """Return what the server holds now."""
    told = server.get("/soak/in_use")
    process = Path(f"/proc/{server.pid}")
    status = (process / "status").read_text(encoding="utf-8")
    (resident,), (threads,) = (re.findall(rf"{f}:\s*(\d+)", status) for f in ("VmRSS", "Threads"))
    unfinished = {path for pattern in _UNFINISHED for path in server.base.rglob(pattern)}
    return State(
        resident=int(resident) * 1024,
        in_use=told["in_use"],
        threads=int(threads),
        open_files=len(list((process / "fd").iterdir())),
        left_over=len(unfinished) + len(list((server.base / "tmp").iterdir())),
        reports=len(list((server.base / "output/nvfp4_foundry/reports").glob("*"))),
        tensors_read=told["tensors_read"],
    )


def growth(values: Sequence[float]) -> float:
    """Return how much is added per queue run, over the second half.

    A calibration fills while it is in use: the mean over each is what must not grow.
    """
    size = _CALIBRATION_RUNS // len(KINDS)
    means = [fmean(values[at : at + size]) for at in range(0, len(values), size)]
    half = means[len(means) // 2 :]
    return linear_regression(range(len(half)), half).slope / _CALIBRATION_RUNS


def problems(states: Sequence[State], beside: Sequence[State]) -> list[str]:
    """Return what grew more than in the control, whose states are ``beside``."""
    found = []
    for field, bound in (("in_use", MOST_KEPT), ("resident", MOST_GROWTH)):
        own, other = (growth([getattr(s, field) for s in part]) for part in (states, beside))
        if own - other > bound:
            found.append(f"{field} grows by {(own - other) / 1e3:.1f} kB a queue run too many")
    middle, end = states[len(states) // 2 :][:10], states[-10:]
    for field in ("threads", "open_files", "left_over"):
        # the fewest: a connection of this script may be open as well
        before, after = (min(getattr(s, field) for s in part) for part in (middle, end))
        if after > before:
            found.append(f"{field} grew from {before} to {after}")
    read, read_beside = (part[-1].tensors_read - part[0].tensors_read for part in (states, beside))
    if not 0.9 * read <= read_beside <= 1.1 * read:
        found.append(f"the control read {read_beside} tensors, not about {read}")
    return found


def soak(soaked: Sequence[Soaked], runs: int, seconds: float) -> int:
    """Queue the workflows in turn, and record the states; return how many each has run.

    Stops at ``runs``, or after so many seconds, but not before there is something to compare.
    """
    done, ends = 0, time.monotonic() + seconds
    try:
        for each in soaked:
            each.start()
        for number in range(runs):
            whole = number % _CALIBRATION_RUNS == 0
            if whole and number >= _FEWEST and time.monotonic() > ends:
                break
            done = number + 1
            for each in soaked:
                each.run(number)
                if done % len(KINDS) == 0:
                    each.record()
        for each in soaked:
            before = each.states[-1].resident
            each.server.get("/soak/in_use?trim")
            freed = before - state_of(each.server).resident
            print(f"malloc_trim returns {freed / 1e6:.1f} MB at the end")
    finally:
        for each in soaked:
            each.server.stop()
    return done


def show(title: str, soaked: Soaked, runs: int) -> None:
    """Print a table, and how much is added per queue run."""
    states = soaked.states
    step = max(1, len(states) // 10)
    rows = [
        (
            str((n + 1) * len(KINDS)),
            f"{s.resident / 1e6:.1f}",
            f"{s.in_use / 1e6:.2f}",
            *(str(value) for value in list(asdict(s).values())[2:]),
        )
        for n, s in enumerate(states)
        if (n + 1) % step == 0
    ]
    headings = ("run", "resident MB", "in use MB", "threads", "open files", "left over",
                "reports", "tensors read")  # fmt: skip
    print(f"{title}\n{text_table(headings, rows)}")
    print(f"its history holds {soaked.history / runs / 1e3:.1f} kB of JSON for each queue run")
    for field in ("in_use", "resident"):
        slope = growth([getattr(s, field) for s in states])
        print(f"over the second half, each adds {slope / 1e3:.2f} kB to {field}")
    left = sorted(path.name for path in soaked.temporary.rglob("*"))
    print(f"temporary files: {', '.join(left[:10]) or 'none'}")


def main() -> None:
    """Soak, print every so often, and fail if something grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--json", type=Path, help="write the states of both to this file")
    options = parser.parse_args()
    options.runs = max(_FEWEST, options.runs + -options.runs % _CALIBRATION_RUNS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the servers as well
    os.environ.setdefault("PYTHONMALLOC", "malloc")
    with tempfile.TemporaryDirectory(prefix="nvfp4-soak-") as folder:
        ours = Soaked(KINDS, Path(folder) / "ours")
        beside = Soaked((control,), Path(folder) / "control")
        begin = time.perf_counter()
        runs = soak((ours, beside), options.runs, options.minutes * 60)
        seconds = time.perf_counter() - begin
        show("The pack", ours, runs)
        show("Control", beside, runs)
    print(f"{runs} queue runs of each in {seconds:.0f} s")
    if options.json:
        states = [[asdict(state) for state in each.states] for each in (ours, beside)]
        options.json.write_text(json.dumps(states), encoding="utf-8")
    found = problems(ours.states, beside.states)
    print("\n".join(found) or "nothing grew more than in the control")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
