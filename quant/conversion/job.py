"""The decisions of a conversion that are made before the first weight is read."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import torch

from ..calibration.input_scale import ScaleDecision, decide_scales
from ..calibration.statistics import CalibrationStatistics
from ..errors import Remedy, SourceError
from ..formats import for_shape, get_format
from ..formats.base import TensorSpec
from ..planning.inventory import Layer, take_inventory
from ..planning.plan import Plan, PlannedLayer
from ..rounding import NEED_MOMENTS
from ..sources.base import TensorSource
from ..sources.prefixed import COMFYUI_PREFIXES
from ..sources.stored_layers import INPUT_SCALE, MARKER
from .idle_experts import without_idle_failures
from .layer import input_scale_of, stored_name
from .observed_input import ObservedInputs
from .unjudged_factors import without_unjudged_factors


@dataclass(frozen=True)
class ConversionJob:
    """A source, its plan, and the decisions that follow from both.

    ``layers`` are in the order of encoding. ``decisions`` are the static input scales by layer.
    ``started`` is `time.monotonic` at the beginning. ``whole_file``: names keep their prefix, and
    the tensors beside the model are copied.
    """

    source: TensorSource
    plan: Plan
    layers: tuple[tuple[Layer, PlannedLayer], ...]
    decisions: Mapping[str, ScaleDecision]
    statistics: CalibrationStatistics | None
    device: torch.device
    started: float
    whole_file: bool = False

    @property
    def prefix(self) -> str:
        """Prefix of the names of the model's tensors in the checkpoint."""
        return self.source.prefix if self.whole_file else ""

    @property
    def rest(self) -> TensorSource | None:
        """Tensors beside the model that are copied unchanged; None if there are none."""
        return self.source.rest if self.whole_file else None

    def specs(self) -> dict[str, TensorSpec]:
        """Return the specs of all tensors of the checkpoint, in the source's order."""
        specs: dict[str, TensorSpec] = {}
        layers = {planned.name: (layer, planned) for layer, planned in self.layers}
        for layer, planned in (layers[planned.name] for planned in self.plan.layers):
            fmt = for_shape(get_format(planned.format), layer.shape)
            for suffix, spec in fmt.tensor_specs(layer.shape, layer.tensor.dtype).items():
                specs[stored_name(layer, suffix)] = spec
            if fmt.marker is not None:
                size = len(fmt.marker_bytes(layer.shape))
                specs[stored_name(layer, MARKER)] = TensorSpec((size,), torch.uint8)
            if input_scale_of(fmt, self.decisions.get(layer.name)) is not None:
                specs[stored_name(layer, INPUT_SCALE)] = TensorSpec((), torch.float32)
            for info in layer.companions:
                specs[info.name] = TensorSpec(info.shape, info.dtype)
        specs = {self.prefix + name: spec for name, spec in specs.items()}
        for name, info in self.rest.tensors.items() if self.rest else ():
            specs[name] = TensorSpec(info.shape, info.dtype)
        return specs


def prepare_job(
    source: TensorSource,
    plan: Plan,
    statistics: CalibrationStatistics | None,
    device: torch.device | str,
    *,
    whole_file: bool = False,
) -> ConversionJob:
    """Check that source, plan and calibration belong together, and decide on the input scales.

    Raises:
        SourceError: the names are to be kept, but ComfyUI does not load them.
        PlanError: the plan was made for another model.
        CalibrationError: the calibration is from another model, one of its files or a file of input
            scales is damaged, or the file of scales names layers that the model does not have.
    """
    if whole_file:
        require_kept_names(source)
    inventory = take_inventory(source)
    plan.require_layers(inventory, source.description)
    layers = inventory.layers
    if statistics is not None:
        statistics.require_model(source.fingerprint())
        if plan.recipe.rounding in NEED_MOMENTS or plan.recipe.bias_correction:
            _require_moments(statistics)  # find damaged files before the work, not after an hour
    scaled = [layer.name for layer in plan.quantized() if _takes_scale(layer)]
    decisions = _decide_scales(source, plan, statistics, scaled, layers)
    plan = without_unjudged_factors(without_idle_failures(plan, decisions), statistics)
    planned = {layer.name: layer for layer in plan.layers}
    order = ObservedInputs(statistics).together(planned)
    return ConversionJob(
        source=source,
        plan=plan,
        layers=tuple((layers[name], planned[name]) for name in order),
        decisions={name: decisions[name] for name in scaled if _takes_scale(planned[name])},
        statistics=statistics,
        device=torch.device(device),
        started=time.monotonic(),
        whole_file=whole_file,
    )


def _takes_scale(layer: PlannedLayer) -> bool:
    """Whether ComfyUI reads a static input scale of a layer."""
    fmt = for_shape(get_format(layer.format), layer.shape)
    return layer.kind == "linear" and fmt.activation_divisor is not None


def require_kept_names(source: TensorSource) -> None:
    """Refuse to keep the names of a file if ComfyUI does not load them.

    Raises:
        SourceError: the prefix is none of ComfyUI's.
    """
    if source.prefix not in ("", *COMFYUI_PREFIXES):
        raise SourceError(
            f"{source.description}: ComfyUI loads no checkpoint whose names begin with "
            f"{source.prefix!r}, and a whole checkpoint keeps its names; leave out "
            "--whole-checkpoint (in the nodes: whole_checkpoint)",
            remedy=Remedy("Without the rest of the checkpoint", "whole_checkpoint", False),
        )


def _decide_scales(
    source: TensorSource,
    plan: Plan,
    statistics: CalibrationStatistics | None,
    scaled: Sequence[str],
    model_layers: Collection[str],
) -> dict[str, ScaleDecision]:
    """Decide on the static input scales. A source that has its own gives those that are missing.

    They represent the largest activation in the calibration that the source was made with.
    """
    policy = plan.recipe.input_scale
    decisions = decide_scales(policy, statistics, scaled, model_layers)
    if policy.kind == "dynamic":
        return decisions
    for name, decision in decisions.items():
        stored = source.stored_weight(f"{name}.weight")
        if stored and stored.format and stored.format.has_channel_scale:
            continue  # it is for the input times the factors, which the decoded weight lacks
        amax = stored.input_amax() if stored and not decision.is_static else None
        if amax and isfinite(amax):
            reason = f"static: the source's own input scale, for inputs up to {amax:.4g}"
            decisions[name] = ScaleDecision(reason, amax=amax)
    return decisions


def _require_moments(statistics: CalibrationStatistics) -> None:
    for layer in statistics.inputs.values():
        for part in layer.moments.parts if layer.moments else ():
            part.require_readable()
