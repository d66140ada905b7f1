"""The fields of a recipe: what is checked of each, and how JSON Schema describes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, PlainValidator, ValidationInfo, WithJsonSchema

from ..calibration.input_scale import DEFAULT_POLICY, InputScalePolicy, parse_policy
from ..errors import CalibrationError, FoundryError
from ..formats import FORMATS, get_format
from ..hardware.comfyui import FLOOR, parse_version, version_text
from ..rounding import ROUNDINGS, get_rounding
from .bounded_regex import bounded
from .layers import Kind
from .roles import Role

SCHEMA_VERSION = 1
# No model has more than 10,000 blocks, and Python refuses to read numbers of thousands of digits.
_BLOCKS = re.compile(r"any|first:\d{1,4}|last:\d{1,4}|\d{1,4}(-\d{1,4})?")


# FLOOR and newer, as JSON Schema says it.
_COMFYUI_PATTERN = r"^(|(0\.(29|[3-9]\d|\d{3,})|[1-9]\d*\.\d+)(\.\d+)?)$"


def _known(find: Callable[[str], object]) -> AfterValidator:
    """Return a validator that accepts the names that ``find`` knows."""

    def check(name: str) -> str:
        try:
            find(name)
        except FoundryError as error:
            raise ValueError(str(error)) from error
        return name

    return AfterValidator(check)


def _require_compilable(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    for pattern in as_tuple(value) or ("",):
        if not pattern:
            raise ValueError("an empty pattern matches nothing")
        if pattern.startswith("re:"):
            bounded(pattern[3:])
    return value


def _require_kinds(value: tuple[Kind, ...]) -> tuple[Kind, ...]:
    if not value:
        raise ValueError("an empty list of kinds matches nothing; list a kind, or leave kinds out")
    return value


def _require_roles(value: tuple[Role, ...]) -> tuple[Role, ...]:
    if not value:
        raise ValueError("an empty list of roles matches nothing; list a role, or leave roles out")
    return value


def _require_blocks(value: str) -> str:
    first, _, last = value.partition("-")
    if not _BLOCKS.fullmatch(value) or (last and int(first) > int(last)):
        raise ValueError(
            f"must be any, first:N, last:N, N or N-M with N up to M, not {value[:40]!r}"
        )
    return value


def require_version(value: int) -> int:
    """Refuse versions of the schema that do not exist yet."""
    if value < 1:
        raise ValueError(f"recipe versions start at 1, not {value}")
    if value > SCHEMA_VERSION:
        raise ValueError(f"recipe version {value} is newer than NVFP4 Foundry; update the pack")
    return value


def _require_comfyui(value: str) -> str:
    if not value:
        return value
    version = parse_version(value)
    if version < FLOOR:
        raise ValueError(f"the oldest ComfyUI that is supported is {version_text(FLOOR)}")
    return version_text(version)


def _read_policy(value: Any, info: ValidationInfo) -> InputScalePolicy:
    """Parse the text of a policy. If it names no headroom, the recipe's headroom applies."""
    if value is DEFAULT_POLICY:
        value = value.text
    if isinstance(value, InputScalePolicy):
        return value
    if not isinstance(value, str):
        raise ValueError(f"an input scale policy must be text such as amax, not {value!r}")
    try:
        return parse_policy(value, info.data.get("headroom"))
    except CalibrationError as error:
        raise ValueError(str(error)) from error


Patterns = Annotated[str | tuple[str, ...], AfterValidator(_require_compilable)]
Kinds = Annotated[tuple[Kind, ...], AfterValidator(_require_kinds)]
Roles = Annotated[tuple[Role, ...], AfterValidator(_require_roles)]
FormatName = Annotated[
    str, _known(get_format), WithJsonSchema({"type": "string", "enum": list(FORMATS)})
]
RoundingName = Annotated[
    str, _known(get_rounding), WithJsonSchema({"type": "string", "enum": list(ROUNDINGS)})
]
Blocks = Annotated[
    str,
    AfterValidator(_require_blocks),
    WithJsonSchema({"type": "string", "pattern": f"^({_BLOCKS.pattern})$"}),
]
ComfyUIVersion = Annotated[
    str,
    AfterValidator(_require_comfyui),
    WithJsonSchema({"type": "string", "pattern": _COMFYUI_PATTERN}),
]
WrittenPolicy = Annotated[
    InputScalePolicy,
    PlainValidator(_read_policy),
    WithJsonSchema({"type": "string"}),
]


def as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return one or several patterns as a tuple."""
    return (value,) if isinstance(value, str) else value
