"""Arguments of the subcommands that read and write model files and recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .artefacts import add_artefact_options
from .gguf import add_gguf_options
from .shared import (
    add_command,
    add_complete_from,
    add_device_option,
    add_recipe_options,
    add_scale_options,
    add_source,
)


def add_inspect(commands: Any) -> None:
    """Add ``nvfp4 inspect``."""
    parser = add_command(
        commands,
        "inspect",
        "Show the layers, formats and sizes of a model file.",
        "nvfp4 inspect wan2.2_ti2v_5B_nvfp4.safetensors",
    )
    parser.add_argument(
        "path", metavar="PATH", help="file, index.json, folder, or hf://owner/repo/file"
    )


def add_plan(commands: Any) -> None:
    """Add ``nvfp4 plan``."""
    parser = add_command(
        commands,
        "plan",
        "Show which layer would get which format, and the size, without converting.",
        "nvfp4 plan wan2.2_ti2v_5B_fp16.safetensors --preset wan2.2-ti2v-5b",
    )
    add_source(parser)
    add_recipe_options(parser)


def add_quantize(commands: Any) -> None:
    """Add ``nvfp4 quantize``."""
    parser = add_command(
        commands,
        "quantize",
        "Write a mixed-precision NVFP4 checkpoint.",
        "nvfp4 quantize model.safetensors model_nvfp4.safetensors --preset wan2.2-ti2v-5b "
        "--stats calibration.safetensors",
    )
    add_source(parser)
    parser.add_argument("target", metavar="DST", type=Path, help="the checkpoint to write")
    parser.add_argument("--stats", metavar="FILE", type=Path, help="calibration statistics")
    parser.add_argument(
        "--whole-checkpoint",
        action="store_true",
        help="of a full checkpoint, copy the text encoder and VAE too",
    )
    add_device_option(parser)
    parser.add_argument(
        "--report", metavar="FILE", type=Path, help="also save the report: .html, .json or .txt"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace DST and the report if they exist"
    )
    add_recipe_options(parser)


def add_verify(commands: Any) -> None:
    """Add ``nvfp4 verify``."""
    parser = add_command(
        commands,
        "verify",
        "Read a checkpoint back and check it, against its source if given.",
        "nvfp4 verify model_nvfp4.safetensors --source model.safetensors",
    )
    parser.add_argument(
        "path",
        metavar="DST",
        help="the checkpoint: file, index.json, folder, or hf://owner/repo/file",
    )
    parser.add_argument("--source", metavar="SRC", help="the model it was made from")
    add_complete_from(parser)


def add_compare(commands: Any) -> None:
    """Add ``nvfp4 compare``."""
    parser = add_command(
        commands,
        "compare",
        "Show how far the weights of two checkpoints of one model are apart, layer by layer.",
        "nvfp4 compare model.safetensors model_nvfp4.safetensors",
    )
    parser.add_argument("a", metavar="A", help="the reference, quantized or not")
    parser.add_argument("b", metavar="B", help="the checkpoint to measure against it")


def add_rescale(commands: Any) -> None:
    """Add ``nvfp4 rescale``."""
    parser = add_command(
        commands,
        "rescale",
        "Give a quantized checkpoint other static activation scales, without quantizing again.",
        "nvfp4 rescale model_nvfp4.safetensors --stats calibration.safetensors --in-place",
    )
    parser.description = (
        f"{parser.description}\n\nOnly input_scale tensors are written, added or removed, in NVFP4 "
        "and float8 layers of a\ncheckpoint of this or another tool. All other tensors stay as "
        "they are, byte for byte."
    )
    parser.add_argument(
        "path", metavar="CHECKPOINT", help="the quantized file, or hf://owner/repo/file"
    )
    parser.add_argument("--stats", metavar="FILE", type=Path, help="calibration statistics")
    add_scale_options(parser)
    parser.add_argument("--dynamic", action="store_true", help="remove all static scales")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", metavar="OUT", type=Path, help="write the result here")
    target.add_argument("--in-place", action="store_true", help="replace CHECKPOINT itself")
    target.add_argument("--dry-run", action="store_true", help="only show what would change")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def add_recipe(commands: Any) -> None:
    """Add ``nvfp4 recipe``."""
    parser = add_command(
        commands,
        "recipe",
        "List the presets, show one as a recipe, check a recipe file, or make one from elsewhere.",
        "nvfp4 recipe --preset wan2.2-14b --setting edge_blocks=3 --output mine.json\n"
        "  nvfp4 recipe --from-checkpoint theirs_nvfp4.safetensors --set '*.ffn.2=bf16'",
    )
    add_recipe_options(parser, with_model=False)
    add_artefact_options(parser)
    add_gguf_options(parser)
    parser.add_argument("--output", metavar="FILE", type=Path, help="save the recipe as JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
