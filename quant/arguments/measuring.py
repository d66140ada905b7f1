"""Arguments of the subcommands about what calibration and sensitivity tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .shared import (
    add_command,
    add_device_option,
    add_recipe_options,
    add_scale_options,
    add_source,
)


def add_stats(commands: Any) -> None:
    """Add ``nvfp4 stats``."""
    parser = add_command(
        commands,
        "stats",
        "Show calibration statistics, merge several of one model, import logs, export scales.",
        "nvfp4 stats monday.safetensors tuesday.safetensors --merge both.safetensors\n"
        "  nvfp4 stats --import-log scales.xz --model model.safetensors --output log.safetensors\n"
        "  nvfp4 stats both.safetensors --export-input-scales scales.json",
    )
    parser.add_argument("paths", metavar="FILE", type=Path, nargs="*", help="statistics files")
    parser.add_argument(
        "--merge", "--output", metavar="OUT", type=Path, help="write all of them as one file"
    )
    log = parser.add_argument_group("logs of patched ComfyUI installs")
    log.add_argument(
        "--import-log",
        metavar="LOG",
        dest="logs",
        type=Path,
        action="append",
        default=[],
        help="add lines of format, dynamic|provided, layer, scale, amax, shape; .gz, .xz and .bz2 "
        "too; may be repeated",
    )
    log.add_argument(
        "--model",
        metavar="SRC",
        help="the model that was logged: file, index.json, folder, or hf://owner/repo/file",
    )
    log.add_argument(
        "--ignore-unknown",
        action="store_true",
        help="leave out layers the model does not have, such as a text encoder's",
    )
    export = parser.add_argument_group("input scales for other converters")
    export.add_argument(
        "--export-input-scales", metavar="JSON", type=Path, help="write a scale for every layer"
    )
    export.add_argument(
        "--as",
        dest="flavour",
        choices=("layers", "tensors", "summary"),
        default="layers",
        help="layers: layer -> scale, for convert_to_quant (default); tensors: layer.input_scale "
        "-> scale; summary: what was seen, for convert_nvfp4",
    )
    export.add_argument(
        "--for",
        metavar="FORMAT",
        dest="format",
        default="nvfp4",
        help="the format the scales are for (default: nvfp4)",
    )
    export.add_argument(
        "--prefix", metavar="TEXT", default="", help="put before names, e.g. model.diffusion_model."
    )
    add_scale_options(export)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def add_sensitivity(commands: Any) -> None:
    """Add ``nvfp4 sensitivity``."""
    parser = add_command(
        commands,
        "sensitivity",
        "Measure what each layer loses in each format, on calibrated inputs.",
        "nvfp4 sensitivity model.safetensors --stats calibration.safetensors "
        "--output sensitivity.json --plot map.png",
    )
    parser.description = (
        f"{parser.description}\n\nThis is the error of each layer's own output. How far the "
        "whole model's output moves\ncan be measured in ComfyUI only, which has a sampler: by "
        "its node Probe Latent Shift.\nA good mix needs that."
    )
    add_source(parser)
    parser.add_argument(
        "--stats", metavar="FILE", type=Path, required=True, help="calibration statistics"
    )
    parser.add_argument(
        "--output", metavar="FILE", type=Path, required=True, help="the sensitivity, as JSON"
    )
    parser.add_argument(
        "--formats",
        metavar="A,B",
        help="candidate formats (default: nvfp4,nvfp4_w4a16,float8_e4m3fn; for Turing and Ampere "
        "convrot_w4a4,convrot_w4a8,int8_convrot)",
    )
    parser.add_argument(
        "--rounding", metavar="NAME", help="how weight scales are chosen (default: weighted)"
    )
    add_device_option(parser)
    parser.add_argument(
        "--plot", metavar="PNG", type=Path, help="also draw a heat map of the first format"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace --output and --plot if they exist"
    )


def add_mix(commands: Any) -> None:
    """Add ``nvfp4 mix``."""
    parser = add_command(
        commands,
        "mix",
        "Choose each layer's format for a size, bits per weight or error, by measured sensitivity.",
        "nvfp4 mix model.safetensors --sensitivity sensitivity.json --preset auto --size 4.2GB "
        "--output mix.json --plot frontier.png",
    )
    parser.description = (
        f"{parser.description}\n\nOnly Linears that the preset or recipe quantizes are chosen "
        "anew. Without a budget the\nmix is as large as the preset's own. 'nvfp4 quantize "
        "--recipe mix.json' uses it.\nTake a sensitivity that ComfyUI's Probe Result has saved: by "
        "the errors of layers alone\na mix may be worse than its preset."
    )
    add_source(parser)
    parser.add_argument(
        "--sensitivity", metavar="FILE", type=Path, required=True, help="what layers lose"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--size", metavar="SIZE", help="least error in a file of e.g. 4.2GB")
    budget.add_argument("--bits", metavar="X", help="least error at X bits per mixed weight")
    budget.add_argument("--error", metavar="X%", help="least size with a predicted error of X%%")
    parser.add_argument(
        "--formats",
        metavar="A,B",
        help="to choose from (default: nvfp4,float8_e4m3fn,bf16; for Turing and Ampere "
        "convrot_w4a4,int8_convrot,bf16); nvfp4_w4a16 would replace every nvfp4, being as small, "
        "more precise and slower",
    )
    add_recipe_options(parser)
    parser.add_argument("--output", metavar="FILE", type=Path, help="save the mix as a recipe")
    parser.add_argument("--plot", metavar="PNG", type=Path, help="draw error over size")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace --output and --plot if they exist"
    )
