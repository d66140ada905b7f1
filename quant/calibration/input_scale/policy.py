"""Which activation magnitude a layer's static ``input_scale`` should represent.

Too large a scale costs nothing over a wide range (1x to 64x of the true amax), too small a scale
clips and ruins the layer. So the default is the largest value ever seen times a headroom, and a
layer whose observation is in doubt gets no static scale: the runtime then computes one per call.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import CalibrationError
from ..coverage import is_partial
from ..records import LayerStatistics
from ..statistics import CalibrationStatistics
from .read import divisor_of, read_scales

DEFAULT_HEADROOM = 4.0

PolicyKind = Literal["amax", "percentile", "fixed", "dynamic", "file"]


@dataclass(frozen=True)
class InputScalePolicy:
    """How static input scales are chosen; `CalibrationError` for values without meaning.

    kind ``amax``: the largest amax of any call x ``headroom``. ``percentile``: the
    ``percent``-th percentile over the amax of the calls (never over elements) x ``headroom``.
    ``fixed``: ``input_scale`` itself for every layer. ``dynamic``: no static scale. ``file``: what
    ``path`` says, see `input_scale_file`; ranges that were measured are multiplied by ``headroom``,
    scales are taken as they are. ``format`` is what its scales are for, if it does not say.
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
                f"the headroom of an input scale must be at least 1 (less clips) and at most 1e6, "
                f"not {self.headroom:g}"
            )
        if not 0.0 < self.percent <= 100.0:
            raise CalibrationError(
                f"a percentile of calls lies above 0 and up to 100, not at {self.percent:g}"
            )
        if (self.kind == "fixed") != (self.input_scale is not None):
            raise CalibrationError("a fixed input scale needs a value, the other policies none")
        if (self.kind == "file") != (self.path is not None) or (self.format and not self.path):
            raise CalibrationError(
                "input scales from a file need its path, the other policies none"
            )
        if self.format:
            divisor_of(self.format)
        if self.input_scale is not None and not (2.0**-126 <= self.input_scale <= 1e38):
            raise CalibrationError(
                f"a fixed input scale must be positive and fit float32, not {self.input_scale:g}"
            )

    @property
    def takes_headroom(self) -> bool:
        """Whether ``headroom`` means anything: not for ``fixed`` and ``dynamic``."""
        return self.kind in ("amax", "percentile", "file")

    @property
    def text(self) -> str:
        """The policy as text, without its headroom."""
        if self.kind == "fixed":
            return f"fixed={self.input_scale!r}"
        if self.kind == "file":
            return f"file:{self.format}={self.path}" if self.format else f"file={self.path}"
        return f"p{self.percent:.12g}" if self.kind == "percentile" else self.kind

    def __str__(self) -> str:
        """Return the text `parse_policy` reads back."""
        return f"{self.text}*{self.headroom!r}" if self.takes_headroom else self.text


#: What recipes say unless told otherwise.
DEFAULT_POLICY = InputScalePolicy()

_KNOWN = "known: amax, amax*4, p99.9, p99.9*1.5, fixed=0.01, dynamic, file=scales.json"
_NUMBER = r"[0-9.]+(?:e[-+]?[0-9]+)?"
_POLICY = re.compile(
    rf"(?:(?P<amax>amax)|p(?P<percent>{_NUMBER}))(?:\s*[*x]\s*(?P<headroom>{_NUMBER}))?"
    rf"|fixed\s*=\s*(?P<fixed>{_NUMBER})|(?P<dynamic>dynamic)"
)
_FILE = re.compile(
    rf"file(?::(?P<format>\w+))?\s*=\s*(?P<path>.+?)(?:\s*\*\s*(?P<headroom>{_NUMBER}))?",
    re.IGNORECASE,
)


def parse_policy(text: str, headroom: float | None = None) -> InputScalePolicy:
    """Read a policy from text: ``amax``, ``amax*4``, ``p99.9*1.5``, ``fixed=0.01``, ``dynamic``.

    ``file=PATH`` takes the values from a file, ``file:float8_e4m3fn=PATH`` says what they are for.
    ``headroom`` applies where the text names none (default 4). Raises `CalibrationError` listing
    what is known.
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
        raise CalibrationError(f"cannot read the policy {match[0]!r}: {error}") from error
    factor = DEFAULT_HEADROOM if factor is None else factor
    name = (match["format"] or "").lower()
    return InputScalePolicy("file", factor, path=Path(match["path"]), format=name)


@dataclass(frozen=True)
class ScaleDecision:
    """The magnitude a layer's scale represents, or the scale itself, or neither: dynamic.

    At most one of ``amax`` and ``input_scale`` is set. ``reason`` says why, in words.
    """

    reason: str
    amax: float | None = None
    input_scale: float | None = None

    @property
    def is_static(self) -> bool:
        """Whether the layer gets a static scale."""
        return self.amax is not None or self.input_scale is not None

    def scale_for(self, divisor: float) -> float | None:
        """Return the ``input_scale`` to store, None for dynamic.

        ``divisor`` is the largest value of the format: 6 * 448 = 2688 for NVFP4, 448 for FP8.
        """
        return self.input_scale if self.amax is None else self.amax / divisor


def represented_amax(
    policy: InputScalePolicy, layer: LayerStatistics | None, reference_calls: int = 0
) -> ScaleDecision:
    """Decide on the static scale of one layer.

    ``layer`` is None when it was not observed; ``reference_calls`` is what
    `CoverageReport.reference_calls` says a layer should have had.
    """
    if policy.kind == "dynamic":
        return ScaleDecision("dynamic: asked for")
    if policy.kind == "fixed":
        return ScaleDecision("fixed: asked for", input_scale=policy.input_scale)
    if layer is None or layer.calls == 0:
        return ScaleDecision("dynamic: the layer was never observed")
    if is_partial(layer.calls, reference_calls):
        return ScaleDecision(f"dynamic: only {layer.calls} of {reference_calls} calls were seen")
    if layer.nonfinite_calls:
        return ScaleDecision(f"dynamic: {layer.nonfinite_calls} calls had NaN or infinite inputs")
    if policy.kind == "amax":
        seen, what = layer.amax, f"amax of {layer.calls} calls"
    else:
        seen = layer.percentile(policy.percent)
        what = f"p{policy.percent:g} of the amax of {layer.calls} calls"
    if not seen:
        return ScaleDecision("dynamic: every input was zero")
    return ScaleDecision(
        f"static: {what} ({seen:.4g}) x {policy.headroom:g}", seen * policy.headroom
    )


def decide_scales(
    policy: InputScalePolicy,
    statistics: CalibrationStatistics | None,
    layers: Iterable[str],
    model_layers: Collection[str] = (),
) -> dict[str, ScaleDecision]:
    """Decide for many layers of one model; without statistics none was observed.

    ``model_layers``: all there are, which a file may name. Raises `CalibrationError` when a file
    of scales cannot be read or names others.
    """
    names = list(layers)
    if policy.path is not None:
        return _scales_from_file(policy, policy.path, names, model_layers or names)
    if statistics is None:
        return {name: represented_amax(policy, None) for name in names}
    reference = statistics.coverage(names).reference_calls
    return {
        name: represented_amax(policy, statistics.layers.get(name), reference) for name in names
    }


def _scales_from_file(
    policy: InputScalePolicy, path: Path, names: Iterable[str], known: Collection[str]
) -> dict[str, ScaleDecision]:
    stored = read_scales(path, policy.format)
    amax = stored.by_model_name(known)
    factor = policy.headroom if stored.observed else 1.0
    measured = f"amax in {stored.file} x {factor:g}" if stored.observed else f"from {stored.file}"
    return {
        name: ScaleDecision(f"static: {measured}", amax[name] * factor)
        if amax.get(name)
        else ScaleDecision(f"dynamic: {stored.file} has no scale for it")
        for name in names
    }
