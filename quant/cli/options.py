"""The options that several commands share. A command adds those it reads."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import CalibrationError, FormatError, PlanError, RecipeError, UsageError
from ..hardware.generations import GPU_NAMES
from .paths import InputPath, OutputPath, output_ending_in

#: Whose layout NVFP4 weights without markers can have, as ``quant.sources`` names it.
LAYOUTS = ("comfyui", "modelopt")
#: A parser, or a group of its options.
Parser: TypeAlias = "argparse._ActionsContainer"


@dataclass(frozen=True)
class RecipeChoice:
    """What ``--preset`` and ``--recipe`` take: the name of a preset, or a recipe saved as JSON."""

    text: str

    @property
    def file(self) -> InputPath | None:
        """The file, unless this is the name of a preset."""
        is_path = self.text.lower().endswith(".json") or set(self.text) & {"/", os.sep}
        return InputPath(self.text) if is_path or Path(self.text).is_file() else None

    @property
    def inputs(self) -> tuple[InputPath, ...]:
        """The file to read, if it is one."""
        return (self.file,) if self.file else ()


@dataclass(frozen=True)
class Edit:
    """What ``--set`` and ``--setting`` take: ``setting=value``, or a rule; and which was typed."""

    text: str
    spelling: str = "--set"

    @property
    def name(self) -> str:
        """What stands before the first ``=``."""
        return self.text.partition("=")[0].strip()


class PolicyText(str):
    """What ``--input-scale`` takes. Of ``file=PATH``, the file is an input."""

    __slots__ = ()

    @property
    def inputs(self) -> tuple[InputPath, ...]:
        """The file to read, if it names one."""
        if not self.strip().lower().startswith("file"):
            return ()
        from ..calibration import parse_policy

        try:
            path = parse_policy(str(self)).path
        except CalibrationError:  # the command says what is wrong with it
            return ()
        return (InputPath(path),) if path else ()


class _Once(argparse.Action):
    """Stores a value, and refuses a second one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) is not self.default:
            raise argparse.ArgumentError(self, "it can be given only once")
        setattr(namespace, self.dest, values)


class _AppendEdit(argparse.Action):
    """Collects edits with the spelling of the option."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        edit = Edit(values, option_string or "--set")
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), edit))


def names(text: str) -> tuple[str, ...]:
    """Read ``A,B``."""
    return tuple(name.strip() for name in text.split(","))


def fraction(text: str) -> float:
    """Read 0.08 from ``8%`` or ``0.08``."""
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 8%") from None
    return number / 100 if text.strip().endswith("%") else number


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Report what is wrong with the values of options as wrong usage (exit code 2)."""
    try:
        yield
    except (RecipeError, FormatError, PlanError, CalibrationError) as error:
        raise UsageError(str(error)) from error


def add_source(parser: Parser) -> None:
    """Add the model to quantize and what completes it."""
    parser.add_argument(
        "source",
        metavar="SRC",
        type=InputPath,
        help="the model: a file, an index.json, a folder, or hf://owner/repo/file",
    )
    add_complete_from(parser)
    add_layout(parser)


def add_layout(parser: Parser) -> None:
    """Add whose layout NVFP4 weights without markers have."""
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="",
        help="only for NVFP4 files without markers that do not show who wrote them: comfyui for "
        "files of ComfyUI and tools for it, modelopt for files of NVIDIA ModelOpt",
    )


def add_complete_from(parser: Parser) -> None:
    """Add where to take the tensors from that the source lacks."""
    parser.add_argument(
        "--complete-from",
        metavar="FILE",
        type=InputPath,
        help="take tensors that SRC lacks from this file, such as the patch embedding that many "
        "WAN GGUF files lack",
    )


def add_recipe_choice(parser: Parser, default: str | None = None) -> None:
    """Add the preset or recipe; without a default, ``auto`` chooses by the model."""
    what = f"default: {default}" if default else "auto: the preset made for the model"
    parser.add_argument(
        "--preset",
        "--recipe",
        dest="recipe",
        metavar="NAME|FILE",
        action=_Once,
        type=RecipeChoice,
        default=RecipeChoice(default) if default else None,
        help=f"a preset ('nvfp4 recipe list' shows them) or a recipe saved as JSON; {what}",
    )


def add_edits(parser: Parser, *, of_preset: bool = True) -> None:
    """Add what changes the formats of a recipe; of one made from a preset, its settings too."""
    setting = "change a setting of the preset, e.g. edge_blocks=3, or " if of_preset else ""
    parser.add_argument(
        "--set",
        "--setting",
        dest="edits",
        metavar="NAME=VALUE" if of_preset else "PATTERN=FORMAT",
        action=_AppendEdit,
        default=(),
        help=f"{setting}add a rule that wins over the recipe's rules, e.g. 'blocks.*.ffn.2=bf16' "
        "or '* @ first:3 = float8_e4m3fn'; can be repeated",
    )
    parser.add_argument(
        "--gpu",
        choices=("auto", *GPU_NAMES),
        help="use the formats that this GPU multiplies natively; auto: this machine's GPU "
        "(default: the formats of the preset or recipe; presets are made for Blackwell)",
    )
    parser.add_argument(
        "--comfyui",
        metavar="VERSION",
        help="the oldest ComfyUI that must load the checkpoint, e.g. 0.33, which knows two more "
        "formats: asym_w4a8_int8 and nvfp4_smooth (default: what the recipe says, else 0.29)",
    )


def add_any_architecture(parser: Parser) -> None:
    """Add the permission to use a preset on any model."""
    parser.add_argument(
        "--any-architecture",
        action="store_true",
        help="use a preset on a model that it was not made for",
    )


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add everything that describes the recipe for a model."""
    formats = parser.add_argument_group("which layer gets which format")
    add_recipe_choice(formats)
    add_edits(formats)
    add_any_architecture(formats)
    add_numbers(parser.add_argument_group("how the numbers are chosen"))


def add_numbers(parser: Parser) -> None:
    """Add how weights are rounded and what static input scales represent."""
    parser.add_argument(
        "--rounding",
        metavar="NAME",
        help="how weights are rounded: weighted (default), mse or max; gptq or gptaq with a "
        "calibration that holds Hessians. gptq is nearly lossless on GPUs before Blackwell, which "
        "multiply NVFP4 in 16 bits",
    )
    add_scale_options(parser)


def add_scale_options(parser: Parser) -> None:
    """Add what static input scales represent."""
    parser.add_argument(
        "--input-scale",
        metavar="POLICY",
        type=PolicyText,
        help="how static input scales are chosen: amax (default) or a percentile such as p99.9, "
        "times a headroom (default: 4; 'amax*2' for another), dynamic (no static scales), "
        "fixed=VALUE, or file=PATH, which takes them from a quantized checkpoint or from a JSON "
        "file of another tool",
    )


def add_calibration(parser: Parser, *, required: bool = False) -> None:
    """Add the calibration."""
    parser.add_argument(
        "--calibration",
        "--stats",
        dest="calibration",
        metavar="FILE",
        type=InputPath,
        required=required,
        help="a calibration of the model",
    )


def add_device(parser: Parser) -> None:
    """Add where to compute."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to encode weights (default: cuda if there is one)",
    )


def add_output(parser: Parser, metavar: str, help: str, *, required: bool = False) -> None:
    """Add the file to write."""
    parser.add_argument("--output", metavar=metavar, type=OutputPath, required=required, help=help)


def add_plot(parser: Parser, help: str) -> None:
    """Add the picture to draw."""
    parser.add_argument("--plot", metavar="PNG", type=output_ending_in(".png"), help=help)


def add_overwrite(parser: Parser, what: str) -> None:
    """Add the permission to replace output files."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what} if it exists")
