"""Odd names and values of the wrong type get a named validation error before the queue starts."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer

#: Clears a terminal and sets its title; ComfyUI's own log has colours.
ESCAPE = "\x1b[2J\x1b]0;title\x07"
#: Names that are no file names on every system.
NAMES = (
    "a\0b", "\0", "n" * 5000, "d/" * 2000 + "n", "CON", "con", "nul.safetensors", "COM1.x", "LPT¹",
    "aux ", "name.", "name..", "name ", " name", "a\tb", "a\nb", ESCAPE, "\x9b2J", "\u202egnp",
    "a\u2028b", "\ud800", "a\udfffb", "../name", "..\\name", "/tmp/name", "\\\\host\\share\\name",
    "C:\\name", "C:name", "a:b", "name:stream", "..", ".", ".hidden", "a?", "a*", "a|b", '"a"',
    "<a>", "$" * 181,
)  # fmt: skip
#: Names that only a folder makes wrong.
PATHS = (
    "CON/name",
    "a /name",
    "a./name",
    "a//name",
    "a/../name",
    "./name",
    "name/",
    "d" * 181 + "/n",
)
#: What programs send instead of text.
VALUES: tuple[Any, ...] = (
    None, True, {}, {"a": 1}, [], ["a"], ["a", "b"], ["a", 0], [0, 0], [None, None], [[], 0],
    ["n0", -1], ["n0", 99], ["n0", "0"], ["n0", 0.5], ["n0", True], [1, 2, 3], {"__value__": ["a"]},
    {"__value__": {"__value__": "a"}}, {"__value__": None},
)  # fmt: skip

SELECT = {
    "preset": "auto", "extra_rules": "", "rounding": "max", "input_scale": "dynamic",
    "gpu": "as the preset says",
}  # fmt: skip
TARGET = {"file_name": "hostile", "folder": "output", "if_exists": "stop"}
FILE = {"model_file": "diffusion_models/tiny_wan.safetensors"}
SCALES = {"input_scale": "values from a file", "input_scale.headroom": 4.0}
GGUF = {
    "source": "GGUF", "source.bits_limit": 4, "source.higher": "bf16", "source.edge_blocks": 0,
    "source.edge_format": "bf16",
}  # fmt: skip
ADVICE = {
    "source": "calibration", "source.max_input_error": 12.0, "source.max_spread": 4.0,
    "source.careful": "bf16", "source.unseen": "bf16",
}  # fmt: skip

#: Node, input and its other inputs, by what the input is.
NAMED = (
    ("Calibrate", "name", {"accumulate": "continue", "rows_per_layer": 1, "memory_budget_mb": 16}),
    ("SaveRecipe", "name", {}),
    ("ExportInputScales", "name", {"input_scale": "amax", "input_scale.headroom": 4.0,
                                   "layout": "layers", "format": "nvfp4", "prefix": ""}),
    ("MeasureSensitivity", "save_as", {"rounding": "max"}),
    ("ProbeResult", "save_as", {}),
    ("AutoMix", "save_as", {"budget": "preset's own size"}),
    ("MergeCalibrations", "save_as", {}),
    ("ImportActivationLog", "save_as", {"log_file": "hostile.log", "ignore_unknown": False}),
)  # fmt: skip
TARGETS = (
    ("SaveCheckpoint", "file_name", TARGET),
    ("QuantizeFile", "file_name", {**TARGET, **FILE, "any_architecture": False}),
    ("RescaleCheckpoint", "file_name", {**TARGET, **FILE, "input_scale": "dynamic"}),
)
FILES = (
    ("LoadSourceModel", "model_file", {}),
    ("LoadSourceModel", "complete_from", FILE),
    ("QuantizeFile", "model_file", {**TARGET, "any_architecture": False}),
    ("QuantizeFile", "complete_from", {**TARGET, **FILE, "any_architecture": False}),
    ("InspectCheckpoint", "model_file", {}),
    ("RescaleCheckpoint", "model_file", {**TARGET, "input_scale": "dynamic"}),
    ("RescaleCheckpoint", "input_scale.file", {**TARGET, **FILE, **SCALES}),
    ("SelectPreset", "input_scale.file", {**SELECT, **SCALES}),
    ("LoadCalibration", "name", {}),
    ("LoadRecipe", "source.name", {"source": "recipe file"}),
    ("LoadRecipe", "source.gguf_file", GGUF),
    ("LoadRecipe", "source.model_file", {"source": "checkpoint"}),
    ("LoadRecipe", "source.calibration", ADVICE),
    ("ProbeResult", "source", {"save_as": ""}),
    ("ImportActivationLog", "log_file", {"ignore_unknown": False, "save_as": ""}),
    ("CalibrationPrompts", "deck.name", {"deck": "file", "limit": 4}),
)
CHOICES = (
    ("SelectPreset", "preset", SELECT),
    ("SelectPreset", "input_scale", SELECT),
    ("LoadRecipe", "source", {}),
    ("CalibrationPrompts", "deck", {"limit": 4}),
    ("AutoMix", "budget", {"save_as": ""}),
    ("RescaleCheckpoint", "input_scale", {**TARGET, **FILE}),
    ("SaveCheckpoint", "folder", TARGET),
    ("SaveCheckpoint", "if_exists", TARGET),
)

#: ComfyUI looks through all nodes for each one that it refuses.
AT_ONCE = 30

Case = tuple[str, str, dict[str, Any], Any]


def cases() -> list[Case]:
    names = [(*where, value) for where in NAMED for value in (*NAMES, *PATHS, *VALUES)]
    names += [(*where, "") for where in NAMED[:3]]
    targets = [(*where, value) for where in TARGETS for value in (*NAMES, *PATHS, *VALUES)]
    files = [(*where, value) for where in FILES for value in (*NAMES, *PATHS, *VALUES)]
    files += [(node, name, given, f"diffusion_models/{value}")
              for node, name, given in FILES[:5] for value in (*NAMES, *PATHS, ".")]  # fmt: skip
    choices = [(*where, value) for where in CHOICES for value in (*NAMES, *PATHS, *VALUES, "")]
    return [*names, *targets, *files, *choices]


def refused(server: ComfyServer, hostile: list[Case]) -> Iterator[list[dict[str, Any]]]:
    """Post the cases, some at a time, and yield the errors of each."""
    for start in range(0, len(hostile), AT_ONCE):
        part = hostile[start : start + AT_ONCE]
        prompt: dict[str, Any] = {"n0": {"class_type": "EmptyImage", "inputs": {}}}
        for number, (node, name, given, value) in enumerate(part):
            prompt[f"c{number}"] = {
                "class_type": f"NVFP4Foundry{node}",
                "inputs": {**given, name: value},
            }
            prompt[f"o{number}"] = {
                "class_type": "PreviewAny",
                "inputs": {"source": [f"c{number}", 0]},
            }
        try:  # ComfyUI runs what it accepts, and mentions the rest
            errors = json.loads(server.post("/prompt", {"prompt": prompt}))["node_errors"]
        except urllib.error.HTTPError as error:
            errors = json.loads(error.read())["node_errors"]
        for number in range(len(part)):
            yield errors.get(f"c{number}", {}).get("errors", [])


def test_odd_names_and_values_are_refused_by_name(server: ComfyServer) -> None:
    (server.base / "input/hostile.log").write_text("")
    hostile = cases()
    before = len(server.log_text())
    files = {path for path in server.base.parent.rglob("*") if "report" not in str(path)}
    unnamed = []
    for case, found in zip(hostile, refused(server, hostile), strict=True):
        # inputs that are sockets are missing here; that is not what is wrong with the case
        own = [e for e in found if e["type"] != "required_input_missing"]
        texts = [e["message"] + e["details"] for e in own]
        if not own or any("exception" in e["type"] for e in own):
            unnamed.append((case[0], case[1], case[3], texts))
        # ComfyUI's own check of a list repeats the whole value
        long = [e for e in own if len(e["details"]) > 1000 and e["type"] != "value_not_in_list"]
        assert not long and all(map(str.isprintable, texts)), (case, texts)
    assert not unnamed, (len(unnamed), len(hostile), unnamed[:40])
    log = server.log_text()[before:]
    assert "Traceback" not in log
    assert not [c for c in ("\x1b[2J", "\x1b]", "\0", "\x9b", "\u202e") if c in log]
    assert files >= {path for path in server.base.parent.rglob("*") if "report" not in str(path)}


def test_escape_codes_in_names_of_layers_do_not_reach_the_terminal(server: ComfyServer) -> None:
    tensors = load_file(TINY)
    tensors[f"blocks.0.{ESCAPE}.weight"] = torch.full((256, 256), torch.inf)
    save_file(tensors, server.base / "models/diffusion_models/escapes.safetensors")
    before = len(server.log_text())
    workflow: wf.Workflow = {}
    wf.add(
        workflow, "file", "NVFP4FoundryQuantizeFile", **TARGET, any_architecture=True,
        model_file="diffusion_models/escapes.safetensors", recipe=["preset", 0],
    )  # fmt: skip
    rules = {**SELECT, "extra_rules": "* = nvfp4"}
    wf.add(workflow, "preset", "NVFP4FoundrySelectPreset", **rules)
    run = server.run(workflow)
    assert run.status == "error" and r"blocks.0.\u001b[2J" in run.error
    log = server.log_text()[before:]
    assert r"\u001b[2J" in log and not [c for c in ("\x1b[2J", "\x1b]") if c in log]
