"""``nvfp4 sensitivity``."""

from __future__ import annotations

import argparse

from ..calibration import load_statistics
from ..errors import FormatError, RecipeError, UsageError
from ..hardware.machine import pick_device
from ..reports.pictures.sensitivity import draw_sensitivity
from ..reports.sensitivity import describe_sensitivity
from ..rounding import DEFAULT_ROUNDING, get_rounding
from ..sensitivity.artefact import save_sensitivity
from ..sensitivity.measure import DEFAULT_CANDIDATES, measure_sensitivity, quantized_format
from .output import print_json, progress
from .source import chosen_source
from .targets import files_read, require_free


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
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
    with chosen_source(options) as source, progress("measure", options) as on_progress:
        for path in targets:
            require_free(path, (*files_read(options), *source.paths), options.overwrite)
        sensitivity = measure_sensitivity(
            source,
            statistics,
            formats or DEFAULT_CANDIDATES,
            rounding=rounding,
            device=device,
            on_progress=on_progress,
        )
    save_sensitivity(sensitivity, options.output)
    if options.plot:
        draw_sensitivity(sensitivity, sensitivity.formats[0]).save(options.plot)
    if options.json:
        unknown = {name: list(sensitivity.unknown(name)) for name in sensitivity.formats}
        return print_json({**sensitivity.to_json(), "unknown": unknown})
    print(describe_sensitivity(sensitivity))
    for path in targets:
        print(f"wrote {path}")
    return 0
