"""A MODEL that measures, while it samples, how far quantizing parts of it moves its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP, copy_nested_dicts, get_wrappers_with_key
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from ...quant.errors import CalibrationError
from ...quant.sensitivity.probe import SAMPLED, LatentProbe
from ...quant.sensitivity.schedule import ProbeSchedule, short_schedule
from .models import OBSERVER_KEY, PROBE_KEY, transformer_options

_WRAPPERS = (WrappersMP.OUTER_SAMPLE, WrappersMP.SAMPLER_SAMPLE, WrappersMP.APPLY_MODEL)


@dataclass(frozen=True)
class ProbeSession:
    """A probe and its schedule; it measures while its MODEL samples.

    With ``whole_samplings``, it probes a short sampling before each sampling. The schedule sets the
    number of steps.
    """

    probe: LatentProbe
    schedule: ProbeSchedule
    whole_samplings: bool = False


def probed_clone(model: Any, session: ProbeSession) -> Any:
    """Return a clone of a MODEL that probes every sampling; the samples do not change.

    The hooks exist only while the probe runs. A torch.compile wrapper is removed from the clone,
    because a compiled graph silently loses hooks. Sampling refuses a wrapper that is added later,
    and a calibration, which would record the probe's runs.
    """
    clone = model.clone()
    for wrapper in _WRAPPERS:
        clone.remove_wrappers_with_key(wrapper, PROBE_KEY)
    clone.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY)
    if session.whole_samplings:
        _probe_samplings(clone, session)
    else:
        _probe_calls(clone, session)
    return clone


def _probe_samplings(clone: Any, session: ProbeSession) -> None:
    """Before the real sampling, sample with few sigmas: unquantized, then once per unit."""

    def sampler_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        # (guider, sigmas, extra_args, callback, noise, latent, mask, disable_pbar), all by position
        guider, sigmas, extra, _, noise, *rest = args
        chosen = short_schedule(len(sigmas) - 1, session.schedule.sigmas_wanted)
        if not chosen:
            return executor(*args, **kwargs)
        replay, few = _random_state(noise.device), sigmas[list(chosen)]

        def run() -> torch.Tensor:
            replay()
            # Samplers may write into any of these. Without a callback, previews show the real one.
            again = {**extra, "model_options": copy_nested_dicts(extra["model_options"])}
            again["model_options"].setdefault("transformer_options", {})["sample_sigmas"] = few
            inputs = [x.clone() if isinstance(x, torch.Tensor) else x for x in (noise, *rest)]
            return executor(guider, few, again, None, *inputs, **kwargs)

        try:
            session.probe.probe(
                guider.model_patcher.model.diffusion_model,
                run,
                run(),
                SAMPLED,
                lambda *_: comfy.model_management.throw_exception_if_processing_interrupted(),
            )
        finally:
            replay()
        return executor(*args, **kwargs)

    def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        _require_alone(transformer_options(args, kwargs))
        return executor(*args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, PROBE_KEY, sampler_sample)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, PROBE_KEY, apply_model)


def _random_state(device: torch.device) -> Callable[[], None]:
    """Return a function that restores torch's present random state on the CPU and a device."""
    cpu = torch.get_rng_state()
    gpu = torch.get_device_module(device) if device.type in ("cuda", "xpu") else None
    state = gpu.get_rng_state(device) if gpu else None

    def replay() -> None:
        torch.set_rng_state(cpu)
        if gpu:
            gpu.set_rng_state(state, device)

    return replay


def _probe_calls(clone: Any, session: ProbeSession) -> None:
    """Repeat some model calls of the sampling, once per unit."""

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        session.schedule.begin(_sigmas(args, kwargs).tolist())
        return executor(*args, **kwargs)

    def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        options = transformer_options(args, kwargs)
        _require_alone(options)
        if not _is_wanted(session.schedule, options):
            return executor(*args, **kwargs)
        # before the run, because some models empty the lists of a ControlNet
        kept, named = _copies(args), dict(zip(kwargs, _copies(kwargs.values()), strict=True))
        output = executor(*args, **kwargs)

        def run() -> torch.Tensor:
            again = dict(zip(named, _copies(named.values()), strict=True))
            return executor(*_copies(kept), **again)

        session.probe.probe(
            executor.class_obj.diffusion_model,
            run,
            output,
            float(options["sigmas"].flatten()[0]),
            lambda *_: comfy.model_management.throw_exception_if_processing_interrupted(),
        )
        return output

    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, PROBE_KEY, outer_sample)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, PROBE_KEY, apply_model)


def _sigmas(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """Return the sigmas of a sampling from the arguments of ``outer_sample``."""
    # (noise, latent_image, sampler, sigmas, ...)
    return kwargs["sigmas"] if "sigmas" in kwargs else args[3]


def _is_wanted(schedule: ProbeSchedule, options: Mapping[str, Any]) -> bool:
    sigmas = options.get("sigmas")
    if sigmas is None:
        return False
    return schedule.wants(float(sigmas.flatten()[0]), options.get("cond_or_uncond") or ())


def _require_alone(options: dict[str, Any]) -> None:
    if get_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY, options):
        raise CalibrationError(
            "Probe Latent Shift cannot observe a compiled model: remove torch.compile after it"
        )
    if get_wrappers_with_key(WrappersMP.APPLY_MODEL, OBSERVER_KEY, options):
        raise CalibrationError(
            "Calibrate would record the runs of Probe Latent Shift: calibrate first, then probe "
            "the model that is connected to the input of Calibrate"
        )


def _copies(values: Any) -> list[Any]:
    """Return the values, with copies of dicts and of the dicts and lists in them."""
    return [copy_nested_dicts(v) if isinstance(v, dict) else v for v in values]
