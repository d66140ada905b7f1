"""What each subcommand of ``nvfp4`` does: read options, call the pipeline, print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .calibration import load_statistics, merge_all, save_statistics
from .calibration.sensitivity import load_sensitivity, save_sensitivity
from .checkpoint import compare_checkpoints, inspect_checkpoint, verify_checkpoint
from .convert import convert
from .describe import (
    describe_comparison,
    describe_mix,
    describe_plan,
    describe_sensitivity,
    describe_statistics,
    describe_summary,
)
from .errors import CheckpointError, FormatError, FoundryError, PlanError, RecipeError
from .formats import get_format
from .frontier_picture import draw_frontier
from .hardware import examine_machine, pick_device
from .library_output import drop_output_of_libraries
from .measure_sensitivity import QUANTIZED_FORMATS, measure_sensitivity, quantized_format
from .planning import (
    MIX_FORMATS,
    Budget,
    Inventory,
    Plan,
    Recipe,
    detect_architecture,
    get_preset,
    load_presets,
    load_recipe,
    make_plan,
    mix_plan,
    parse_budget,
    parse_rule_line,
    take_inventory,
)
from .planning.presets import preset_for
from .report import ConversionReport
from .rounding import DEFAULT_ROUNDING, get_rounding
from .sensitivity_picture import draw_sensitivity
from .sources import open_source

OnProgress = Callable[[int, int, str], None]


class UsageError(FoundryError):
    """Arguments that make no sense together (exit code 2)."""


def run_inspect(options: argparse.Namespace) -> int:
    """``nvfp4 inspect``."""
    summary = inspect_checkpoint(options.path)
    if options.json:
        return _print_json(summary.to_json())
    print(describe_summary(summary))
    return 0


def run_plan(options: argparse.Namespace) -> int:
    """``nvfp4 plan``."""
    with open_source(options.source) as source:
        plan = _plan(options, take_inventory(source))
        notes = source.notes
    if options.json:
        return _print_json({**plan.to_json(), "notes": list(notes)})
    print(describe_plan(plan, notes))
    return 0


def run_quantize(options: argparse.Namespace) -> int:
    """``nvfp4 quantize``."""
    try:
        device = pick_device(options.device)
    except ValueError as error:
        raise UsageError(str(error)) from error
    write_report = _report_writer(options)
    if options.stats and options.target.exists() and options.target.samefile(options.stats):
        raise UsageError(f"{options.target} is the calibration itself; choose another name")
    if options.target.is_file() and not options.overwrite:
        raise CheckpointError(f"{options.target} exists; use --overwrite to replace it")
    statistics = load_statistics(options.stats) if options.stats else None
    with open_source(options.source) as source, _progress("quantize", options) as on_progress:
        if options.report and _is_one_of(options.report, source.paths):
            raise UsageError(f"--report {options.report}: that is a file of the source")
        report = convert(
            source,
            _plan(options, take_inventory(source)),
            options.target,
            statistics=statistics,
            overwrite=options.overwrite,
            device=device,
            on_progress=on_progress,
        )
    if write_report:
        write_report(report)
    if options.json:
        return _print_json(report.to_json())
    print(report.headline())
    return 0


def _is_one_of(path: Path, files: tuple[Path, ...]) -> bool:
    return path.exists() and any(file.exists() and path.samefile(file) for file in files)


def _report_writer(options: argparse.Namespace) -> Callable[[ConversionReport], None] | None:
    """Check the report's path before the work, and return what will write it."""
    path: Path | None = options.report
    if path is None:
        return None
    writers = {".html": "to_html", ".json": "dumps", ".txt": "to_text"}
    if path.suffix not in writers:
        raise UsageError(f"--report {path}: the name must end in {', '.join(writers)}")
    if not path.parent.is_dir():
        raise UsageError(f"--report {path}: the folder {path.parent} does not exist")
    if path.absolute() == options.target.absolute():
        raise UsageError(f"--report {path}: that is where the checkpoint goes")
    if path.is_dir() or (path.exists() and not options.overwrite):
        raise CheckpointError(f"{path} exists; use --overwrite to replace a report")
    method = writers[path.suffix]

    def write(report: ConversionReport) -> None:
        path.write_text(getattr(report, method)(), encoding="utf-8")

    return write


def run_verify(options: argparse.Namespace) -> int:
    """``nvfp4 verify``."""
    with _progress("verify", options) as on_progress:
        result = verify_checkpoint(options.path, options.source, on_progress)
    if options.json:
        _print_json(result.to_json())
    else:
        for problem in result.problems:
            print(f"problem: {problem}")
        compared = "compared with its source" if options.source else "not compared with a source"
        verdict = "fine" if result.ok else f"{len(result.problems)} problems"
        print(f"{verdict}: {result.layers} layers, {result.quantized} quantized, {compared}")
    return 0 if result.ok else 1


def run_compare(options: argparse.Namespace) -> int:
    """``nvfp4 compare``."""
    with _progress("compare", options) as on_progress:
        comparison = compare_checkpoints(options.a, options.b, on_progress)
    if options.json:
        return _print_json(comparison.to_json())
    print(describe_comparison(comparison))
    return 0


def run_stats(options: argparse.Namespace) -> int:
    """``nvfp4 stats``."""
    merged = merge_all([load_statistics(path) for path in options.paths])
    if options.merge:
        if options.merge.exists() and not options.overwrite:
            raise CheckpointError(f"{options.merge} exists; use --overwrite to replace it")
        save_statistics(merged, options.merge)
    if options.json:
        return _print_json(merged.summary())
    print(describe_statistics(merged))
    if options.merge:
        print(f"wrote {options.merge}")
    return 0


def run_sensitivity(options: argparse.Namespace) -> int:
    """``nvfp4 sensitivity``."""
    formats = [f.strip() for f in options.formats.split(",")] if options.formats else None
    rounding = options.rounding or DEFAULT_ROUNDING
    try:
        device = pick_device(options.device)
        get_rounding(rounding)
        for name in formats or ():
            quantized_format(name)
    except (ValueError, RecipeError, FormatError) as error:
        raise UsageError(str(error)) from error
    targets = [path for path in (options.output, options.plot) if path]
    if options.plot and options.plot.suffix != ".png":
        raise UsageError(f"--plot {options.plot}: the name must end in .png")
    if options.plot and options.plot.absolute() == options.output.absolute():
        raise UsageError(f"--plot {options.plot}: that is where the sensitivity goes")
    statistics = load_statistics(options.stats)
    with open_source(options.source) as source, _progress("measure", options) as on_progress:
        for path in targets:
            _require_free(path, (options.stats, *source.paths), options.overwrite)
        sensitivity = measure_sensitivity(
            source,
            statistics,
            formats or QUANTIZED_FORMATS,
            rounding=rounding,
            device=device,
            on_progress=on_progress,
        )
    save_sensitivity(sensitivity, options.output)
    if options.plot:
        draw_sensitivity(sensitivity, sensitivity.formats[0]).save(options.plot)
    if options.json:
        unknown = {name: list(sensitivity.unknown(name)) for name in sensitivity.formats}
        return _print_json({**sensitivity.to_json(), "unknown": unknown})
    print(describe_sensitivity(sensitivity))
    for path in targets:
        print(f"wrote {path}")
    return 0


def run_mix(options: argparse.Namespace) -> int:
    """``nvfp4 mix``."""
    budget, formats = _mix_options(options)
    targets = [path for path in (options.output, options.plot) if path]
    drop_output_of_libraries()
    sensitivity = load_sensitivity(options.sensitivity)
    with open_source(options.source) as source:
        read = [p for p in (options.sensitivity, options.recipe) if p]
        for path in targets:
            _require_free(path, (*read, *source.paths), options.overwrite)
        inventory = take_inventory(source)
        mix = mix_plan(
            _plan(options, inventory),
            inventory,
            sensitivity,
            budget,
            formats,
            fingerprint=source.fingerprint(),
        )
    if options.output:
        options.output.write_text(mix.recipe.to_json() + "\n", encoding="utf-8")
    if options.plot:
        draw_frontier(mix).save(options.plot)
    if options.json:
        return _print_json(mix.to_json())
    print(describe_mix(mix))
    for path in targets:
        print(f"wrote {path}")
    return 0


def _mix_options(options: argparse.Namespace) -> tuple[Budget | None, tuple[str, ...]]:
    """Return the budget, if there is one, and the formats; anything wrong is bad usage."""
    if options.plot and options.plot.suffix != ".png":
        raise UsageError(f"--plot {options.plot}: the name must end in .png")
    if options.plot and options.output and options.plot.absolute() == options.output.absolute():
        raise UsageError(f"--plot {options.plot}: that is where the recipe goes")
    given = {name: getattr(options, name) for name in ("size", "bits", "error")}
    text = next((f"{name}={value}" for name, value in given.items() if value is not None), None)
    names = options.formats.split(",") if options.formats else MIX_FORMATS
    try:
        formats = tuple(get_format(name.strip()).name for name in names)
        return (parse_budget(text) if text else None), formats
    except (FormatError, PlanError) as error:
        raise UsageError(str(error)) from error


def _require_free(path: Path, inputs: tuple[Path, ...], overwrite: bool) -> None:
    """Refuse, before the work, to write where something is, or where nothing can be."""
    if _is_one_of(path, inputs):
        raise UsageError(f"{path} is what is read here; choose another name")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir() or (path.exists() and not overwrite):
        raise CheckpointError(f"{path} exists; use --overwrite to replace it")


def run_recipe(options: argparse.Namespace) -> int:
    """``nvfp4 recipe``."""
    if not options.preset and not options.recipe:
        if options.output or options.setting or options.rules:
            raise UsageError("give --preset or --recipe to build a recipe")
        return _list_presets(options)
    if options.preset == "auto":
        raise UsageError("--preset auto needs a model; it works with plan and quantize")
    recipe = _recipe(options, None)
    if options.output:
        if options.output.exists() and not options.overwrite:
            raise RecipeError(f"{options.output} exists; use --overwrite to replace it")
        options.output.write_text(recipe.to_json() + "\n", encoding="utf-8")
    if options.json or not options.output:
        print(recipe.to_json())
    else:
        print(f"wrote {options.output}")
    return 0


def _list_presets(options: argparse.Namespace) -> int:
    presets = load_presets()
    if options.json:
        return _print_json({"presets": [p.model_dump(mode="json") for p in presets.values()]})
    for preset in presets.values():
        print(f"{preset.name}: {preset.description}")
        for setting in preset.settings:
            allowed = (
                ", ".join(setting.choices)
                if setting.type == "choice"
                else f"{setting.min}-{setting.max}"
            )
            print(f"    {setting.name}={setting.default}  ({allowed})")
    return 0


def run_doctor(options: argparse.Namespace) -> int:
    """``nvfp4 doctor``."""
    machine = examine_machine()
    if options.json:
        return _print_json(machine.to_json())
    print(machine.to_text())
    return 0


def run_demo(options: argparse.Namespace) -> int:
    """``nvfp4 demo``."""
    from ..demo.run import run_demo as run

    result = run(options.output, quiet=options.json)
    if options.json:
        return _print_json(result.to_json())
    print(result.to_text())
    return 0


def _plan(options: argparse.Namespace, inventory: Inventory) -> Plan:
    recipe = _recipe(options, inventory)
    return make_plan(recipe, inventory, any_architecture=options.any_architecture)


def _recipe(options: argparse.Namespace, inventory: Inventory | None) -> Recipe:
    """Build the recipe the options describe; anything wrong with it is bad usage."""
    try:
        if options.recipe:
            if options.setting:
                raise RecipeError("--setting belongs to presets; edit the recipe file instead")
            recipe = load_recipe(options.recipe)
        elif options.preset:
            name = options.preset
            if name == "auto" and inventory is not None:
                name = preset_for(detect_architecture(inventory)).name
            recipe = get_preset(name).build(dict(_split_setting(s) for s in options.setting))
        else:
            raise RecipeError("give --preset NAME or --recipe FILE ('nvfp4 recipe' lists presets)")
        recipe = recipe.with_rules(parse_rule_line(line) for line in options.rules)
        return recipe.with_numbers(options.rounding, options.input_scale, options.headroom)
    except RecipeError as error:
        raise UsageError(str(error)) from error


def _split_setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"--setting {text!r} is not of the form name=value")
    return name.strip(), value.strip()


@contextmanager
def _progress(title: str, options: argparse.Namespace) -> Iterator[OnProgress]:
    """Show a bar on a terminal; say nothing into a file or with --json."""
    hidden = options.json or not sys.stderr.isatty()
    with tqdm(desc=title, unit="B", unit_scale=True, disable=hidden) as bar:

        def advance(done: int, total: int, name: str) -> None:
            bar.total = total
            bar.set_postfix_str(name, refresh=False)
            bar.update(done - bar.n)

        yield advance


def _print_json(data: Any) -> int:
    print(json.dumps(data, indent=1))
    return 0
