"""``nvfp4 sensitivity``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..hardware.usual_formats import MEASURED
from .options import (
    add_calibration,
    add_device,
    add_output,
    add_overwrite,
    add_plot,
    add_source,
    names,
    wrong_usage,
)
from .parser import Commands, add_command
from .ranks import allow_ranks

if TYPE_CHECKING:
    from ..sensitivity.artefact import Sensitivity


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "sensitivity",
        run,
        "Measure the error of each layer in each format, on inputs from a calibration.",
        "nvfp4 sensitivity model.safetensors --calibration calibration.safetensors "
        "--output sensitivity.json --plot map.png",
        "This is the error of each layer's own output. How far the output of the whole model\n"
        "moves can be measured in ComfyUI only, which has a sampler: use its node Probe Latent\n"
        "Shift. A good mix needs that.",
    )
    allow_ranks(parser)
    add_source(parser)
    add_calibration(parser, required=True)
    add_output(parser, "FILE", "save the sensitivity as JSON", required=True)
    parser.add_argument(
        "--formats",
        metavar="A,B",
        type=names,
        help=f"the formats to measure (default: {','.join(MEASURED['blackwell'])}; for Turing and "
        f"Ampere give {','.join(MEASURED['turing_ampere'])}; for Ampere, Ada and Hopper with "
        f"ComfyUI 0.33 {','.join(MEASURED['ampere'])})",
    )
    parser.add_argument(
        "--rounding", metavar="NAME", help="how weights are rounded (default: weighted)"
    )
    add_device(parser)
    add_plot(parser, "also draw a heat map of the first format")
    add_overwrite(parser, "an output")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..reports.pictures.sensitivity import draw_sensitivity
    from ..reports.sensitivity import describe_sensitivity
    from ..sensitivity.artefact import save_sensitivity
    from .output import print_json, print_text, save_picture

    sensitivity = _measure(options)
    if not options.ranks.is_first:
        return 0
    save_sensitivity(sensitivity, options.output.path)
    if options.plot:
        save_picture(draw_sensitivity(sensitivity, sensitivity.formats[0]), options.plot)
    if options.json:
        unknown = {name: list(sensitivity.unknown(name)) for name in sensitivity.formats}
        return print_json({**sensitivity.to_json(), "unknown": unknown})
    return print_text(describe_sensitivity(sensitivity), options)


def _measure(options: argparse.Namespace) -> Sensitivity:
    from ..calibration import load_statistics
    from ..rounding import DEFAULT_ROUNDING, get_rounding
    from ..sensitivity.measure import DEFAULT_CANDIDATES, measure_sensitivity, quantized_format
    from .choice import chosen_device, chosen_source
    from .output import progress

    device = chosen_device(options)
    rounding = options.rounding or DEFAULT_ROUNDING
    with wrong_usage():
        get_rounding(rounding)
        for name in options.formats or ():
            quantized_format(name)
    statistics = load_statistics(options.calibration)
    with chosen_source(options) as source, progress("measure", options) as on_progress:
        return measure_sensitivity(
            source,
            statistics,
            options.formats or DEFAULT_CANDIDATES,
            rounding=rounding,
            device=device,
            ranks=options.ranks,
            on_progress=on_progress,
        )
