"""``nvfp4 mix``."""

from __future__ import annotations

import argparse

from ..derive import MIX_FORMATS, Budget, mix_plan, parse_budget
from ..errors import FormatError, PlanError, UsageError
from ..formats import get_format
from ..library_output import drop_output_of_libraries
from ..planning import take_inventory
from ..reports.mix import describe_mix
from ..reports.pictures.frontier import draw_frontier
from ..sensitivity.artefact import load_sensitivity
from .choice import chosen_plan
from .output import print_json
from .source import chosen_source
from .targets import files_read, require_free


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    budget, formats = _mix_options(options)
    targets = [path for path in (options.output, options.plot) if path]
    drop_output_of_libraries()
    sensitivity = load_sensitivity(options.sensitivity)
    with chosen_source(options) as source:
        for path in targets:
            require_free(path, (*files_read(options), *source.paths), options.overwrite)
        inventory = take_inventory(source)
        mix = mix_plan(
            chosen_plan(options, inventory),
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
        return print_json(mix.to_json())
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
