"""Time this pack against other converters on one file, and print the table of docs/performance.md.

Every tool converts the same synthetic WAN 2.2 TI2V 5B to NVFP4, in a process of its own that
starts cold. The tools take turns; the table has medians, and the speed of each as a multiple of the
slowest one. A tool that is not given or not installed is left out, and a line says so. Run

    python bench/peers.py --profile --convert-to-quant /path/to/convert_to_quant

convert_to_quant needs an environment with torch (``pip install convert-to-quant==1.3.4``). Any
other tool can take part: ``--peer "name=command {source} {target}"``. POSIX only.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from conversion import NVFP4, forget_cached
from floor import describe_floor, measure_floor
from synthetic_wan import BLOCKS, write_wan

OURS = "nvfp4 quantize, "
#: The quantizer of ComfyUI's own kernels, as a converter of a few lines.
KITCHEN = (sys.executable, str(Path(__file__).with_name("comfy_kitchen_alone.py")))
CONVERT_TO_QUANT = ("--nvfp4", "--comfy_quant", "--simple", "--device", "cpu")
Command = tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One conversion: wall and processor seconds, peak resident bytes and bytes written."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output_bytes: int


def commands(options: argparse.Namespace) -> dict[str, Command]:
    """Return the tools to time by name; says which are left out."""
    found: dict[str, Command] = {}
    for rounding in options.roundings:
        found[f"{OURS}`{rounding}`"] = (
            *(*NVFP4, "quantize", "{source}", "{target}", "--preset", "all"),
            *("--rounding", rounding, "--device", "cpu"),
        )
    found["comfy-kitchen's quantizer alone"] = (*KITCHEN, "{source}", "{target}")
    tool = options.convert_to_quant or shutil.which("convert_to_quant")
    if tool and shutil.which(tool):
        name = "convert_to_quant `--simple`"
        found[name] = (tool, "-i", "{source}", "-o", "{target}", *CONVERT_TO_QUANT)
    else:
        print("convert_to_quant is left out: not found, see --convert-to-quant", file=sys.stderr)
    for peer in options.peer:
        name, _, command = peer.partition("=")
        found[name] = tuple(shlex.split(command))
    return found


def run_once(command: Command, source: Path, target: Path, *, cold: bool) -> Run | None:
    """Convert once and delete the target; None if the tool failed."""
    os.sync()  # the data of the run before must not be written during this one
    if cold:
        forget_cached(source)
    filled = [part.format(source=source, target=target) for part in command]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(filled, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if os.waitstatus_to_exitcode(status) or not target.exists():
            output.seek(0)
            print(f"{shlex.join(filled)} failed:\n{output.read()[-2000:]}", file=sys.stderr)
            target.unlink(missing_ok=True)
            return None
    size = target.stat().st_size
    target.unlink()
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, size)


def measure(options: argparse.Namespace, source: Path, target: Path) -> dict[str, list[Run]]:
    """Run the tools in turns, the peers ``peer_repeats`` times."""
    tools = commands(options)
    runs: dict[str, list[Run]] = {name: [] for name in tools}
    for turn in range(max(options.repeats, options.peer_repeats)):
        for name, command in tools.items():
            ours = name.startswith(OURS)
            if turn >= (options.repeats if ours else options.peer_repeats):
                continue
            done = run_once(command, source, target, cold=options.cold)
            if done is not None:
                runs[name].append(done)
                print(f"{name}: {done.seconds:.1f} s", file=sys.stderr)
    return {name: found for name, found in runs.items() if found}


def describe(runs: dict[str, list[Run]], source_bytes: int) -> str:
    """Return the medians as a Markdown table."""
    seconds = {name: median(run.seconds for run in found) for name, found in runs.items()}
    slowest = max(seconds.values())
    lines = [
        "| converter | s | MB/s of source | processor s | peak memory | output | runs | times |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in runs.items():
        lines.append(
            f"| {name} | {seconds[name]:.1f} | {source_bytes / seconds[name] / 1e6:.0f} "
            f"| {median(run.cpu_seconds for run in found):.1f} "
            f"| {max(run.peak_bytes for run in found) / 1e9:.2f} GB "
            f"| {found[0].output_bytes / 1e9:.2f} GB | {len(found)} "
            f"| {slowest / seconds[name]:.1f} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """Return what the figures were measured on, and when the machine was busy."""
    return (
        f"{platform.machine()}, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    )


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="folder for the large files (a temporary one)")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="blocks; 30 are 10.0 GB (30)")
    parser.add_argument("--roundings", nargs="+", default=["max", "mse"], help="of this pack")
    parser.add_argument("--repeats", type=int, default=3, help="runs of this pack (3)")
    parser.add_argument("--peer-repeats", type=int, default=1, help="runs of other tools (1)")
    parser.add_argument("--cold", action="store_true", help="drop the source from the page cache")
    parser.add_argument("--convert-to-quant", metavar="FILE", help="its command")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--profile", action="store_true", help="also show where the time goes")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="nvfp4-bench-", dir=options.folder) as folder:
        source, target = Path(folder, "wan.safetensors"), Path(folder, "nvfp4.safetensors")
        size = write_wan(source, options.blocks)
        before = machine()
        runs = measure(options, source, target)
        text = f"{size / 1e9:.2f} GB bf16. {before}.\n\n{describe(runs, size)}\n"
        if options.profile:
            floors = {r: measure_floor(source, target, r) for r in options.roundings}
            measured = {
                rounding: median(run.seconds for run in runs[f"{OURS}`{rounding}`"])
                for rounding in options.roundings
            }
            text += f"\n{describe_floor(floors, measured)}\n"
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
