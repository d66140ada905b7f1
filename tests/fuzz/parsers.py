"""One fuzzer per parser: what is mutated, and what must read it or refuse it by name."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest import mock

import torch
from nvfp4_foundry.quant.calibration.activation_log import read_activation_log
from nvfp4_foundry.quant.calibration.input_scale import parse_policy
from nvfp4_foundry.quant.calibration.input_scale.read import read_scales
from nvfp4_foundry.quant.calibration.storage import load_fingerprint, load_statistics
from nvfp4_foundry.quant.cli import main
from nvfp4_foundry.quant.cli.main import MISTAKE, build_parser
from nvfp4_foundry.quant.cli.parser import Parser
from nvfp4_foundry.quant.derive.mix.budget import parse_budget
from nvfp4_foundry.quant.planning import (
    Inventory,
    detect_architecture,
    load_recipe,
    make_plan,
    parse_rule_lines,
    take_inventory,
    with_preset,
)
from nvfp4_foundry.quant.planning.presets import Preset
from nvfp4_foundry.quant.planning.recipe import Recipe, validated
from nvfp4_foundry.quant.sensitivity.artefact import load_sensitivity
from nvfp4_foundry.quant.sensitivity.probe_record import ProbeRecord, UnitShift
from nvfp4_foundry.quant.sources import TensorSource, open_source
from nvfp4_foundry.quant.sources.open import open_tensors, open_to_look

from .mutations import mutated_bytes, mutated_json, mutated_safetensors, mutated_text
from .specimens import LOG, Specimens

#: Mutates one specimen and reads it in an empty folder; raises what the parser raises.
Fuzzer = Callable[[Random, Specimens, Path], None]

_SMALL = 1 << 20
_OPENERS = {".log": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
_PRESETS = Path(__file__).parents[2] / "presets"
_RULES = "blocks.*.ffn.* @ first:1 = keep\nre:blocks\\.(\\d+)\\..* = nvfp4\n# a note\n*.q = bf16\n"
_POLICIES = ("amax", "p99.9 * 1.2", "fixed=0.5", "file=scales.json", "dynamic", "amax*1e3")
_BUDGETS = ("8 GB", "60%", "4.5 bits", "12GiB", "error 2%", "500 MB")


class UnnamedError(Exception):
    """A command ended in a way that is no answer: a mistake, or control characters."""


def safetensors_header(random: Random, valid: Specimens, folder: Path) -> None:
    """The header of a file of weights."""
    path = folder / "a.safetensors"
    path.write_bytes(mutated_safetensors(random, valid.model.read_bytes()))
    with open_to_look(path) as source:
        take_inventory(source)
        _load_some(random, source)


def gguf_header(random: Random, valid: Specimens, folder: Path) -> None:
    """The header of a GGUF file."""
    path = folder / "a.gguf"
    path.write_bytes(mutated_bytes(random, valid.gguf.read_bytes()))
    with open_tensors(path) as source:
        _load_some(random, source)


def shard_index(random: Random, valid: Specimens, folder: Path) -> None:
    """The index of a model in several files."""
    shard = folder / "m-00001-of-00001.safetensors"
    shard.hardlink_to(valid.model)
    weight_map = dict.fromkeys(_tensor_names(valid.model), shard.name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    path = folder / "m.safetensors.index.json"
    path.write_bytes(mutated_json(random, index))
    open_tensors(path).close()


def markers(random: Random, valid: Specimens, folder: Path) -> None:
    """Markers of layers, scales and other tensors of quantized files."""
    path = folder / "a.safetensors"
    chosen = random.choice((valid.nvfp4, *valid.foreign))
    path.write_bytes(_with_marker(random, chosen.read_bytes()))
    with open_source(path) as source:
        _load_some(random, source)


def records(random: Random, valid: Specimens, folder: Path) -> None:
    """The records in our own headers, through what shows them."""
    path = folder / "a.safetensors"
    path.write_bytes(mutated_safetensors(random, valid.nvfp4.read_bytes()))
    command = random.choice(
        (
            ["inspect", path], ["inspect", path, "--json"], ["verify", path],
            ["report", path, "--html", folder / "a.html"], ["report", path, "--card"],
            ["rescale", path, "--input-scale", "amax", "--dry-run"], ["compare", path, valid.nvfp4],
        )
    )  # fmt: skip
    _command(*command)


def recipes(random: Random, valid: Specimens, folder: Path) -> None:
    """A recipe as JSON, resolved for a model."""
    data = json.loads(valid.recipe.read_bytes())
    path = folder / "r.json"
    path.write_bytes(mutated_json(random, data))
    inventory = _inventory(valid.model)
    architecture = detect_architecture(inventory)
    make_plan(with_preset(load_recipe(path), architecture), inventory, any_architecture=True)


def rules(random: Random, valid: Specimens, folder: Path) -> None:
    """Rules as lines of text."""
    for rule in parse_rule_lines(mutated_text(random, _RULES)):
        rule.matches_name("blocks.0.self_attn.q")
        rule.describe("blocks.1.ffn.0")


def presets(random: Random, valid: Specimens, folder: Path) -> None:
    """A preset as data, and what it makes of settings."""
    from nvfp4_foundry.quant.files.json_file import parse_json

    chosen = random.choice(sorted(_PRESETS.glob("*.json")))
    text = mutated_json(random, json.loads(chosen.read_bytes()))
    with contextlib.suppress(ValueError):
        validated(random.choice((Preset, Recipe)), parse_json(text), "a preset")


def calibrations(random: Random, valid: Specimens, folder: Path) -> None:
    """A calibration file."""
    path = folder / "c.safetensors"
    path.write_bytes(mutated_safetensors(random, valid.calibration.read_bytes()))
    load_fingerprint(path)
    load_statistics(path)
    _command(
        *random.choice(
            (
                ["stats", "show", path], ["stats", "show", path, "--json"],
                ["recipe", "from-calibration", path],
                ["stats", "merge", path, valid.calibration, "--output", folder / "m.safetensors"],
                ["stats", "export", path, "--output", folder / "e.json"],
            )
        )
    )  # fmt: skip


def sensitivities(random: Random, valid: Specimens, folder: Path) -> None:
    """A sensitivity file."""
    path = folder / "s.json"
    path.write_bytes(mutated_json(random, json.loads(valid.sensitivity.read_bytes())))
    load_sensitivity(path)
    _command(
        *random.choice(
            (
                ["recipe", "from-sensitivity", path],
                ["mix", valid.model, "--sensitivity", path, "--budget", "70%"],
                ["mix", valid.model, "--sensitivity", path, "--json"],
            )
        )
    )


def probe_records(random: Random, valid: Specimens, folder: Path) -> None:
    """The record of an interrupted probe."""
    path, reference = folder / "p.json", torch.arange(32.0)
    record = ProbeRecord(path, "key")
    record.begin(reference)
    record.add(("nvfp4", "blocks.0"), UnitShift(0.5, 2.0, ("blocks.0.ffn.0",)))
    path.write_bytes(mutated_json(random, json.loads(path.read_bytes())))
    for shift in ProbeRecord(path, "key").begin(reference).values():
        if shift.difference < 0 or not all(isinstance(n, str) for n in shift.unreached):
            raise UnnamedError("a record of nonsense was accepted")


def input_scales(random: Random, valid: Specimens, folder: Path) -> None:
    """Static scales of other tools: JSON of two kinds, or a checkpoint."""
    if random.random() < 0.4:
        path = folder / "s.safetensors"
        path.write_bytes(_with_marker(random, valid.nvfp4.read_bytes()))
    else:
        path = folder / "s.json"
        rows = [{"layer": "blocks.0.ffn.0", "scale_max": 0.5, "amax_max": 3.0}]
        flat = {"blocks.0.ffn.0": 0.25, "_nvfp4_foundry": {"format": "nvfp4"}}
        data = random.choice((flat, {"input_scales": flat}, {"format": "nvfp4", "layers": rows}))
        path.write_bytes(mutated_json(random, data))
    read_scales(path).by_model_name(["blocks.0.ffn.0", "blocks.0.ffn.2"])


def activation_logs(random: Random, valid: Specimens, folder: Path) -> None:
    """A log of activations, plain or compressed, damaged before or after it is compressed."""
    ending = random.choice(tuple(_OPENERS))
    text = mutated_bytes(random, LOG.encode())
    if random.random() < 0.002:
        line = random.choice((b"\n", b"x", LOG.encode()))
        text = line * ((16 << 20) // len(line))
    data = _OPENERS[ending](text)
    if random.random() < 0.5:
        data = mutated_bytes(random, data)
    path = folder / f"a{ending}"
    path.write_bytes(data)
    read_activation_log(path, ["blocks.0.ffn.0"])


def policies(random: Random, valid: Specimens, folder: Path) -> None:
    """The text of a policy for input scales."""
    str(parse_policy(mutated_text(random, random.choice(_POLICIES)), random.choice((None, 1.5))))


def budgets(random: Random, valid: Specimens, folder: Path) -> None:
    """The text of a budget."""
    str(parse_budget(mutated_text(random, random.choice(_BUDGETS))))


def pickles(random: Random, valid: Specimens, folder: Path) -> None:
    """A file of torch.save."""
    path = folder / random.choice(("a.pt", "a.ckpt", "a.safetensors"))
    data = valid.pickle.read_bytes()
    path.write_bytes(mutated_bytes(random, data[-6000:] if random.random() < 0.1 else data))
    with open_tensors(path) as source:
        _load_some(random, source)


def commands(random: Random, valid: Specimens, folder: Path) -> None:
    """Whole commands on a mutated file, with or without JSON."""
    path = folder / "a.safetensors"
    chosen = random.choice((valid.model, valid.nvfp4, *valid.foreign))
    make = random.choice((mutated_safetensors, _with_marker))
    path.write_bytes(make(random, chosen.read_bytes()))
    out = folder / "o.safetensors"
    given = random.choice(
        (
            ["inspect", path], ["plan", path], ["plan", path, "--preset", "all"],
            ["quantize", path, out, "--preset", "all", "--rounding", "max"],
            ["quantize", path, out, "--calibration", valid.calibration],
            ["verify", path, "--source", valid.model], ["verify", valid.nvfp4, "--source", path],
            ["compare", path, valid.model], ["recipe", "from-checkpoint", path],
            ["quantize", valid.model, out, "--input-scale", f"file={path}"],
            ["recipe", "show", path], ["report", path], ["stats", "show", path],
        )
    )  # fmt: skip
    _command(*given, *(["--json"] if random.random() < 0.5 else []))


#: The fuzzers, and their shares of the inputs of a long run.
FUZZERS: dict[str, tuple[Fuzzer, int]] = {
    "safetensors header": (safetensors_header, 4),
    "GGUF header": (gguf_header, 8),
    "shard index": (shard_index, 6),
    "markers": (markers, 3),
    "records": (records, 3),
    "recipes": (recipes, 6),
    "rules": (rules, 20),
    "presets": (presets, 12),
    "calibrations": (calibrations, 3),
    "sensitivities": (sensitivities, 3),
    "probe records": (probe_records, 12),
    "input scales": (input_scales, 8),
    "activation logs": (activation_logs, 12),
    "policies": (policies, 20),
    "budgets": (budgets, 20),
    "pickles": (pickles, 4),
    "commands": (commands, 3),
}


@functools.cache
def _inventory(model: Path) -> Inventory:
    """Return what is in a valid model, which no fuzzer changes."""
    with open_source(model) as source:
        return take_inventory(source)


@functools.cache
def _tensor_names(model: Path) -> tuple[str, ...]:
    with open_tensors(model) as source:
        return tuple(source.tensors)


@functools.cache
def _parser() -> Parser:
    """Return the parser of the command line, which is the same for every input."""
    return build_parser()


def _with_marker(random: Random, data: bytes) -> bytes:
    """Return a file in which one marker is another text, or anything else is mutated."""
    at = data.find(b'{"format"', int.from_bytes(data[:8], "little") + 8)
    if at < 0 or random.random() < 0.5:
        return mutated_safetensors(random, data)
    end = data.index(b"}", at) + 1
    text = mutated_json(random, json.loads(data[at:end]))[: end - at].ljust(end - at)
    return data[:at] + text + data[end:]


def _load_some(random: Random, source: TensorSource) -> None:
    names = [name for name, info in source.tensors.items() if info.nbytes < _SMALL]
    for name in random.sample(names, min(4, len(names))):
        source.load(name)


def _command(*arguments: object) -> None:
    """Run a command; refuse mistakes and control characters in what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with mock.patch.object(sys.modules[main.__module__], "build_parser", _parser):
                code = main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code
    if code not in (0, 1, 2) or code == MISTAKE:
        raise UnnamedError(f"exit code {code}: {err.getvalue()[-400:]}")
    printed = out.getvalue() + err.getvalue()
    odd = {c for c in set(printed) if not (c.isprintable() or c in "\n\t\r")}
    if odd:
        raise UnnamedError(f"{arguments[0]} prints {sorted(map(ascii, odd))}")
    if "--json" in arguments:
        json.loads(out.getvalue())
