"""Policies for the activation magnitude that a layer's static ``input_scale`` represents.

A scale that is too large costs nothing over a wide range (1x to 64x of the true amax). A scale that
is too small clips the activations and ruins the layer. So the default is the largest value seen
times a headroom. A layer that was not observed reliably gets no static scale; the runtime then
computes a dynamic scale per call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import CalibrationError
from .read import divisor_of

DEFAULT_HEADROOM = 4.0

PolicyKind = Literal["amax", "percentile", "fixed", "dynamic", "file"]


@dataclass(frozen=True)
class InputScalePolicy:
    """How static input scales are chosen. Raises `CalibrationError` for invalid values.

    Kinds:

    - ``amax``: the largest amax of any call x ``headroom``.
    - ``percentile``: the ``percent``-th percentile of the amax of the calls (not of elements) x
      ``headroom``.
    - ``fixed``: ``input_scale`` for every layer.
    - ``dynamic``: no static scale.
    - ``file``: the values in ``path``, see `read_scales`. Measured ranges are multiplied by
      ``headroom``; scales are used as they are. ``format`` is the format of the scales, if the
      file does not name it.
    """

    kind: PolicyKind = "amax"
    headroom: float = DEFAULT_HEADROOM
    percent: float = 99.9
    input_scale: float | None = None
    path: Path | None = None
    format: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("amax", "percentile", "fixed", "dynamic", "file"):
            raise CalibrationError(f"unknown input scale policy {self.kind!r}; {_KNOWN}")
        if not 1.0 <= self.headroom <= 1e6:
            raise CalibrationError(
                f"the headroom of an input scale must be between 1 and 1e6, not {self.headroom:g}; "
                "less than 1 would clip activations"
            )
        if not 0.0 < self.percent <= 100.0:
            raise CalibrationError(
                f"the percentile of an input scale must be above 0 and at most 100, not "
                f"{self.percent:g}"
            )
        if (self.kind == "fixed") != (self.input_scale is not None):
            raise CalibrationError(
                "a fixed input scale needs a value, such as fixed=0.01; other policies take none"
            )
        if (self.kind == "file") != (self.path is not None) or (self.format and not self.path):
            raise CalibrationError(
                "input scales from a file need its path, such as file=scales.json; other policies "
                "take none"
            )
        if self.format:
            divisor_of(self.format)
        if self.input_scale is not None and not (2.0**-126 <= self.input_scale <= 1e38):
            raise CalibrationError(
                f"a fixed input scale must be positive and fit into float32, not "
                f"{self.input_scale:g}"
            )

    @property
    def takes_headroom(self) -> bool:
        """Whether the policy uses ``headroom``: all but ``fixed`` and ``dynamic`` do."""
        return self.kind in ("amax", "percentile", "file")

    @property
    def text(self) -> str:
        """The policy as text, without its headroom."""
        if self.kind == "fixed":
            return f"fixed={self.input_scale!r}"
        if self.kind == "file":
            text = f"file:{self.format}={self.path}" if self.format else f"file={self.path}"
            # a path that ends like a headroom would be read as one
            return f"{text}*{self.headroom!r}" if _HEADROOM_AT_END.search(text) else text
        return f"p{self.percent:.12g}" if self.kind == "percentile" else self.kind

    def __str__(self) -> str:
        """Return the policy as text that `parse_policy` reads back."""
        text = self.text
        names_headroom = self.kind == "file" and bool(_HEADROOM_AT_END.search(f"={self.path}"))
        return f"{text}*{self.headroom!r}" if self.takes_headroom and not names_headroom else text


#: The policy of recipes that name none.
DEFAULT_POLICY = InputScalePolicy()

_KNOWN = "known: amax, amax*4, p99.9, p99.9*1.5, fixed=0.01, dynamic, file=scales.json"
_NUMBER = r"[0-9.]+(?:e[-+]?[0-9]+)?"
_POLICY = re.compile(
    rf"(?:(?P<amax>amax)|p(?P<percent>{_NUMBER}))(?:\s*[*x]\s*(?P<headroom>{_NUMBER}))?"
    rf"|fixed\s*=\s*(?P<fixed>{_NUMBER})|(?P<dynamic>dynamic)"
)
_HEADROOM_AT_END = re.compile(rf"\*\s*{_NUMBER}$", re.IGNORECASE)
_FILE = re.compile(
    rf"file(?::(?P<format>\w+))?\s*=\s*(?P<path>.+?)(?:\s*\*\s*(?P<headroom>{_NUMBER}))?",
    re.IGNORECASE,
)


def parse_policy(text: str, headroom: float | None = None) -> InputScalePolicy:
    """Read a policy from text: ``amax``, ``amax*4``, ``p99.9*1.5``, ``fixed=0.01``, ``dynamic``.

    ``file=PATH`` takes the values from a file, ``file:float8_e4m3fn=PATH`` also names their format.
    ``headroom`` applies if the text names none (default 4). Raises `CalibrationError`, listing the
    known policies.
    """
    file = _FILE.fullmatch(text.strip())
    if file is not None:
        return _file_policy(file, headroom)
    match = _POLICY.fullmatch(text.strip().lower())
    if match is None:
        raise CalibrationError(f"cannot read the input scale policy {text!r}; {_KNOWN}")
    try:
        factor = float(match["headroom"]) if match["headroom"] else headroom
        factor = DEFAULT_HEADROOM if factor is None else factor
        if match["dynamic"]:
            return InputScalePolicy("dynamic")
        if match["fixed"]:
            return InputScalePolicy("fixed", input_scale=float(match["fixed"]))
        if match["percent"]:
            return InputScalePolicy("percentile", factor, percent=float(match["percent"]))
    except ValueError as error:
        raise CalibrationError(f"cannot read the input scale policy {text!r}: {error}") from error
    return InputScalePolicy("amax", factor)


def _file_policy(match: re.Match[str], headroom: float | None) -> InputScalePolicy:
    try:
        factor = float(match["headroom"]) if match["headroom"] else headroom
    except ValueError as error:
        raise CalibrationError(
            f"cannot read the input scale policy {match[0]!r}: {error}"
        ) from error
    factor = DEFAULT_HEADROOM if factor is None else factor
    name = (match["format"] or "").lower()
    return InputScalePolicy("file", factor, path=Path(match["path"]), format=name)
