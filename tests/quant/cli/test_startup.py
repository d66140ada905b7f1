"""``nvfp4`` starts at once where no work is asked for, and ends in one line whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant import checkpoint
from nvfp4_foundry.quant.cli.main import MISTAKE, REPORT_AT, SHOW_TRACEBACK

from tests.helpers.command_line import run

TINY = str(MODEL_PATH)
ALL = ("--preset", "all", "--rounding", "max")
HEAVY = ("torch", "numpy", "pydantic", "comfy_kitchen", "tqdm", "safetensors", "scipy", "PIL")
Capture = pytest.CaptureFixture[str]


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["quantize", "--help"], 0),
        (["recipe", "--help"], 0),
        (["recipe", "show", "--help"], 0),
        ([], 2),
        (["quantize"], 2),
        (["frobnicate"], 2),
        (["stats"], 2),
        (["recipe", "show", "all", "--nope"], 2),
        (["plan", "a", "--gpu", "pascal"], 2),
        (["quantize", "a", "b", "--report", "r.pdf"], 2),
        (["quantize", TINY, TINY, "--preset", "all"], 2),
    ],
)
def test_help_and_wrong_usage_import_nothing_heavy(arguments: list[str], code: int) -> None:
    done = python(
        "import sys\n"
        "from nvfp4_foundry.quant.cli import main\n"
        "try:\n"
        f"    code = main({arguments!r})\n"
        "except SystemExit as stop:\n"
        "    code = stop.code\n"
        f"print(code, sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    assert done.stdout.splitlines()[-1] == f"{code} []", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not count a child's time")
def test_help_takes_at_most_300_milliseconds() -> None:
    """Of the processor, because other tests may run at the same time."""

    def seconds() -> float:
        before = os.times()
        done = python("from nvfp4_foundry.quant.cli import main\nmain(['--help'])")
        assert done.returncode == 0 and "COMMAND" in done.stdout
        after = os.times()
        system = after.children_system - before.children_system
        return after.children_user - before.children_user + system

    assert min(seconds() for _ in range(5)) <= 0.3


def run_with_event(module: str, event: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``nvfp4``, and let something happen while it imports a module."""
    return python(
        "import importlib.abc, signal, sys\n"
        # a shell starts its background jobs with this signal ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Event(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        f"            {event}\n"
        "sys.meta_path.insert(0, Event())\n"
        "from nvfp4_foundry.quant.cli import main\n"
        f"sys.exit(main({list(arguments)!r}))\n"
    )


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("module", "prefix"),
    [
        ("nvfp4_foundry.quant.cli.parser", "nvfp4"),
        ("nvfp4_foundry.quant.cli.mix", "nvfp4"),
        ("torch", "nvfp4 plan"),
        ("nvfp4_foundry.quant.reports.plan", "nvfp4 plan"),
    ],
)
def test_an_interrupt_at_any_time_ends_in_one_line(signal: str, module: str, prefix: str) -> None:
    event = f"signal.raise_signal(signal.{signal})"
    done = run_with_event(module, event, "plan", TINY, "--preset", "all", "--json")
    assert done.returncode == 130
    assert done.stderr == f"{prefix}: interrupted; no unfinished file was left\n"
    assert json.loads(done.stdout) == {"ok": False, "error": done.stderr.strip().split(": ")[1]}


def test_an_interrupt_says_which_layers_are_kept(tmp_path: Path) -> None:
    target, kept = tmp_path / "o.safetensors", tmp_path / f".o.safetensors.{'0' * 16}.resumable"
    kept.write_bytes(bytes(2000))
    event = "signal.raise_signal(signal.SIGINT)"
    done = run_with_event("torch", event, "quantize", TINY, str(target), *ALL, "--resume")
    assert done.returncode == 130 and not target.exists()
    assert done.stderr == (
        f"nvfp4 quantize: interrupted; finished layers are kept in {kept} (2.0 kB); the same "
        "command goes on from them, or delete what you do not need\n"
    )


@pytest.mark.parametrize("then", ["raise ImportError(name)", "pass"])
def test_an_interrupt_that_a_library_catches_is_not_lost(then: str, tmp_path: Path) -> None:
    target = tmp_path / "o.safetensors"
    caught = f"try: signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt: {then}"
    done = run_with_event("torch", f"exec({caught!r})", "quantize", TINY, str(target), *ALL)
    assert done.returncode == 130 and not target.exists()
    assert done.stderr == "nvfp4 quantize: interrupted; no unfinished file was left\n"


@pytest.mark.parametrize(
    "error",
    [
        "MemoryError",
        "ImportError('libtorch_cpu.so: failed to map segment from shared object')",
        "OSError(12, 'Cannot allocate memory')",
    ],
)
def test_too_little_memory_to_start_ends_in_one_line(error: str) -> None:
    done = run_with_event("torch", f"raise {error}", "plan", TINY, "--preset", "all")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("nvfp4 plan: out of memory; close other programs")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    ],
)
def test_too_little_memory_to_work_is_1(
    error: Exception, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "inspect_checkpoint", fail)
    code, out, message = run(capsys, "inspect", TINY, "--json")
    assert code == 1 and message.startswith("nvfp4 inspect: out of memory")
    assert json.loads(out)["error"] in message


def test_a_full_gpu_has_advice_of_its_own(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("nvfp4_foundry.quant.conversion.convert.convert", fail)
    code, _, message = run(capsys, "quantize", TINY, "o.safetensors", "--preset", "all")
    assert code == 1 and "the GPU is out of memory; use --device cpu" in message


def test_mistakes_of_the_program_are_one_line_that_says_where_to_report_them(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(checkpoint, "inspect_checkpoint", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, message = run(capsys, "inspect", TINY, "--json")
    assert code == MISTAKE and len(message.splitlines()) == 1
    assert "RuntimeError: no such thing" in message and REPORT_AT in message
    assert json.loads(out)["error"] in message
    (details,) = tmp_path.glob("nvfp4-mistake-*.txt")
    assert str(details) in message and "in fail" in details.read_text(encoding="utf-8")
    monkeypatch.setenv(SHOW_TRACEBACK, "1")
    code, _, message = run(capsys, "inspect", TINY)
    assert code == MISTAKE and "Traceback" in message


def test_mistakes_are_reported_where_the_project_says() -> None:
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'Issues = "{REPORT_AT}"' in project
