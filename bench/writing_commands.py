"""Everything that writes a file, on a tiny model, run in forked children of one warm process.

A fork costs milliseconds, where a new process would import torch for seconds. So a run can be
killed, or its disk filled, a thousand times. POSIX only.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import scipy.optimize  # noqa: F401 - so that no child has to import it
import torch
from nvfp4_foundry.demo.run import (
    CALIBRATION_FILE,
    PICTURE_FILE,
    REPORT_FILES,
    VARIANTS,
    run_demo,
)
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CollectorSettings,
    load_statistics,
    save_statistics,
)
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.cli import main
from nvfp4_foundry.quant.cli.interrupts import Interrupts
from nvfp4_foundry.quant.planning import get_preset, make_plan, take_inventory
from nvfp4_foundry.quant.sensitivity.probe_record import ProbeRecord, UnitShift
from nvfp4_foundry.quant.sources import open_source
from PIL import Image
from safetensors.torch import save_file
from tqdm import tqdm

DEMO_FILES = (
    CALIBRATION_FILE, PICTURE_FILE, *REPORT_FILES, *(variant.file_name for variant in VARIANTS)
)  # fmt: skip
#: The calls after which the disk may differ.
STEPS = frozenset({
    "open", "write", "flush", "fsync", "close", "truncate", "flock", "chmod", "chown", "replace",
    "rename", "link", "unlink", "mkdir", "rmdir",
})  # fmt: skip
WIDTH, BLOCKS = 192, 3
_LONGEST_SECONDS = 300
_OLD = b"what was there before\n"
_LOG = "float8_e4m3fn\tdynamic\tblocks.{}.{}\t0.01\t4.48\t(4, 192)\n"


@dataclass(frozen=True)
class Writing:
    """One way to write files.

    Attributes:
        name: what it is called in the table.
        run: writes the files; returns an exit code.
        folder: where, and nothing else is there.
        outputs: the names of the files.
        before: what the files hold before, other than a line of text.
    """

    name: str
    run: Callable[[], int]
    folder: Path
    outputs: tuple[str, ...]
    before: Mapping[str, bytes] = field(default_factory=dict)

    def reset(self, *, absent: bool) -> dict[str, bytes]:
        """Make the outputs what they were before, or absent; return the content of each."""
        content: dict[str, bytes] = {}
        for name in self.outputs:
            path = self.folder / name
            path.unlink(missing_ok=True)
            if name in self.before or not absent:
                content[name] = self.before.get(name, _OLD)
                path.write_bytes(content[name])
        return content

    def damaged(self, content: Mapping[str, bytes]) -> list[str]:
        """Return the outputs that are neither complete nor what they were before."""
        bad = []
        for name in self.outputs:
            path = self.folder / name
            if not path.exists():
                if name in content:
                    bad.append(name)
            elif path.read_bytes() != content.get(name) and not is_complete(path):
                bad.append(name)
        return bad

    def leftovers(self) -> set[str]:
        """Return the unfinished files in the folder and in those below it."""
        return {str(p) for p in self.folder.rglob(".*") if p.suffix in (".partial", ".tmp")}


def is_complete(path: Path) -> bool:
    """Tell whether a file holds all that was to be written."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
        elif path.suffix == ".html":
            return path.read_bytes().rstrip().endswith(b"</html>")
        elif path.suffix == ".md":
            return (
                path.read_bytes().endswith(b"\n") and b"## Use it in ComfyUI" in path.read_bytes()
            )
        elif path.name == "calibration.safetensors":
            _read_moments(path)
        elif path.name == "imported.safetensors":
            load_statistics(path)
        else:
            return not verify_checkpoint(path).problems
    except Exception as error:
        print(f"{path}: {error!r}")
        return False
    return True


def _read_moments(path: Path) -> None:
    for layer in load_statistics(path).layers.values():
        for part in layer.moments.parts if layer.moments else ():
            part.require_readable()


@dataclass
class Child:
    """A forked process that writes."""

    pid: int

    def ended(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait(self) -> int:
        """Wait for its end; return the exit code.

        Raises:
            SystemExit: it hangs.
        """
        deadline = time.monotonic() + _LONGEST_SECONDS
        while (code := self.ended()) is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise SystemExit(f"process {self.pid} hangs")
            time.sleep(0.001)
        return code

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        os.kill(self.pid, number)
        return self.wait()


def start(run: Callable[[], int], said: Path | None = None) -> Child:
    """Run something in a child; what it prints goes to a file, or nowhere."""
    pid = os.fork()
    if pid:
        return Child(pid)
    code = 99
    try:
        output = os.open(said or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        tqdm.set_lock(threading.RLock())  # not one that a killed sibling may hold
        code = run()
    except BaseException as error:
        print(repr(error), flush=True)
    finally:
        os._exit(code)


def killed_at(run: Callable[[], int], step: int) -> Callable[[], int]:
    """Return ``run``, ended by SIGKILL right before or after one of its calls about files."""

    def hook(frame: FrameType, event: str, called: Any) -> None:
        nonlocal step
        if event in ("c_call", "c_return") and called.__name__ in STEPS:
            step -= 1
            if step < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def watched() -> int:
        threading.setprofile(hook)
        sys.setprofile(hook)
        return run()

    return watched


def steps_of(writing: Writing, said: Path) -> int:
    """Return how many moments `killed_at` knows in a run."""

    def counted() -> int:
        total = 0

        def hook(frame: FrameType, event: str, called: Any) -> None:
            nonlocal total
            total += event in ("c_call", "c_return") and called.__name__ in STEPS

        threading.setprofile(hook)
        sys.setprofile(hook)
        writing.run()
        sys.setprofile(None)
        said.write_text(str(total))
        return 0

    writing.reset(absent=False)
    start(counted).wait()
    return int(said.read_text())


def duration(writing: Writing) -> float:
    """Run to the end, and return the time in seconds.

    Raises:
        SystemExit: the run failed, or left something.
    """
    said = writing.folder.parent / f"{writing.name}.txt"
    content, began = writing.reset(absent=False), time.perf_counter()
    if code := start(writing.run, said).wait():
        raise SystemExit(f"{writing.name} failed with exit code {code}: {said.read_text()}")
    seconds = time.perf_counter() - began
    if writing.damaged(dict.fromkeys(content, b"")) or writing.leftovers():
        raise SystemExit(f"{writing.name} left {os.listdir(writing.folder)}")
    return seconds


@contextmanager
def all_writings(folder: Path) -> Iterator[list[Writing]]:
    """Make the inputs in a folder, and yield everything that writes, each in a folder below it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked child has none of its parent's threads
    try:
        yield _Inputs(folder).writings()
    finally:
        torch.set_num_threads(threads)


class _Inputs:
    """The files that the commands read, and the commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "model.safetensors"
        self.calibration = folder / "calibration.safetensors"
        self.other_calibration = folder / "other.safetensors"
        self.sensitivity = folder / "sensitivity.json"
        self.checkpoint = folder / "quantized.safetensors"
        self.log = folder / "activations.log"
        model = _Tiny()
        save_file({k: v.bfloat16() for k, v in model.state_dict().items()}, self.source)
        for path in (self.calibration, self.other_calibration):
            self._calibrate(model, path)
        self.log.write_text("".join(_LOG.format(i, p) for i in range(BLOCKS) for p in "ab"))
        s, c, cpu = str(self.source), str(self.calibration), ("--device", "cpu")
        quantize = ("quantize", s, str(self.checkpoint), "--preset", "all", "--calibration", c)
        sensitivity = ("sensitivity", s, "--calibration", c, "--output", str(self.sensitivity))
        for arguments in (quantize, sensitivity):
            with redirect_stdout(io.StringIO()):  # in this process, which warms it
                if main([*arguments, *cpu]):
                    raise SystemExit(f"{arguments[0]} failed")

    def _calibrate(self, model: torch.nn.Module, path: Path) -> None:
        collector = ActivationCollector(CollectorSettings(moments_budget_bytes=2**28))
        for seed in range(2):
            collector.new_run([f"prompt {seed}"], {"seed": seed, "steps": 2})
            with collector.observe(model, {f"blocks.{i}.{p}" for i in range(BLOCKS) for p in "ab"}):
                for sigma in (1.0, 0.5):
                    collector.begin_call(sigma, (0,))
                    model(torch.randn(4 * WIDTH, WIDTH))
        with open_source(str(self.source)) as source:
            save_statistics(collector.snapshot(source.fingerprint()), path)

    def writings(self) -> list[Writing]:
        """Return everything that writes."""
        s, c, q = str(self.source), str(self.calibration), str(self.checkpoint)
        measured = ("--sensitivity", str(self.sensitivity))
        cpu = ("--device", "cpu", "--rounding", "max")
        quantized = self.checkpoint.read_bytes()
        return [
            self._command("quantize", (s, "{model.safetensors}", "--preset", "all", *cpu,
                                       "--report", "{report.html}")),
            self._command("rescale", (q, "--calibration", c, "--output", "{model.safetensors}")),
            self._command("rescale --in-place", ("{model.safetensors}", "--calibration", c,
                                                 "--in-place"), {"model.safetensors": quantized}),
            self._command("report", (q, "--card", "{card.md}", "--html", "{report.html}"),
                          more=("quantized.png",)),
            self._command("sensitivity", (s, "--calibration", c, "--output", "{errors.json}",
                                          "--formats", "nvfp4", "--plot", "{map.png}", *cpu)),
            self._command("mix", (s, *measured, "--preset", "all", "--output", "{mix.json}",
                                  "--plot", "{mix.png}")),
            self._command("recipe show", ("smart", "--output", "{recipe.json}")),
            self._command("recipe schema", ("--output", "{schema.json}")),
            self._command("recipe from-calibration", (c, "--output", "{recipe.json}")),
            self._command("recipe from-checkpoint", (q, "--output", "{recipe.json}")),
            self._command("recipe from-sensitivity", (str(self.sensitivity), "--output",
                                                      "{recipe.json}")),
            self._command("stats merge", (c, str(self.other_calibration), "--output",
                                          "{calibration.safetensors}")),
            self._command("stats export", (c, "--output", "{scales.json}")),
            self._command("stats import", (str(self.log), "--model", s, "--output",
                                           "{imported.safetensors}")),
            self._written("plan", ("plan.json",), self._save_plan),
            self._written("probe", ("probe.json",), _save_probe),
            self._written("demo", DEMO_FILES, lambda path: _run_demo(path.parent)),
        ]  # fmt: skip

    def _command(
        self,
        name: str,
        arguments: tuple[str, ...],
        before: Mapping[str, bytes] | None = None,
        more: tuple[str, ...] = (),
    ) -> Writing:
        """Return a command; arguments in braces are files to write."""
        folder = self._folder(name)
        outputs = tuple(a[1:-1] for a in arguments if a.startswith("{"))
        given = [str(folder / a[1:-1]) if a.startswith("{") else a for a in arguments]
        words = [word for word in name.split() if not word.startswith("-")]
        command = [*words, *given, "--overwrite"]
        return Writing(name, lambda: main(command), folder, (*outputs, *more), before or {})

    def _written(
        self, name: str, outputs: tuple[str, ...], write: Callable[[Path], None]
    ) -> Writing:
        folder = self._folder(name)

        def run() -> int:
            with Interrupts():  # as the command line has it
                write(folder / outputs[0])
            return 0

        return Writing(name, run, folder, outputs)

    def _folder(self, name: str) -> Path:
        folder = self.folder / name.replace(" ", "_")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _save_plan(self, path: Path) -> None:
        with open_source(str(self.source)) as source:
            make_plan(get_preset("all").build({}), take_inventory(source)).save(path)


def _run_demo(folder: Path) -> None:
    run_demo(folder, quiet=True, images=2, calibration_images=2, steps=2)


def _save_probe(path: Path) -> None:
    record = ProbeRecord(path, "key")
    record.begin(torch.ones(64))
    for unit in range(20):
        record.add(("nvfp4", f"blocks.{unit}"), UnitShift(0.1, 1.0))


class _Tiny(torch.nn.Module):
    """Linear layers in a few blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList(
            torch.nn.ModuleDict({p: torch.nn.Linear(WIDTH, WIDTH, bias=False) for p in "ab"})
            for _ in range(BLOCKS)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[T, WIDTH]`` to itself."""
        for block in self.blocks:
            for layer in block.children():
                x = torch.tanh(layer(x)) * 8
        return x
