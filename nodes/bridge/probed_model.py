"""A MODEL that measures, while it samples, how far quantizing parts of it moves its output."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP, copy_nested_dicts, get_wrappers_with_key
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from ...quant.errors import CalibrationError
from ...quant.sensitivity.artefact import Sensitivity
from ...quant.sensitivity.probe import SAMPLED, LatentProbe
from ...quant.sensitivity.probe_record import ProbeRecord, discard_oldest
from ...quant.sensitivity.schedule import short_schedule
from ...quant.sensitivity.whole import Formats
from .models import OBSERVER_KEY, PROBE_KEY, transformer_options
from .probe_progress import ProbeProgress
from .sampling_digest import digest_of, digest_of_sampling

_WRAPPERS = (WrappersMP.OUTER_SAMPLE, WrappersMP.SAMPLER_SAMPLE, WrappersMP.APPLY_MODEL)
#: Records of so many samplings are kept, each at most a few hundred kB.
_KEPT_RECORDS = 32


@dataclass(frozen=True)
class ProbeSession:
    """A probe that measures in short samplings before each sampling of its MODEL.

    ``steps`` is the number of steps of a short sampling, ``folder`` where its progress is saved,
    ``node`` the id of the node that made it, which shows the progress. After ``minutes``, the rest
    of the units is estimated (0: no limit). ``rivals`` returns the mixes to sample whole, at most
    ``most_rivals``, once the units are known.
    """

    probe: LatentProbe
    steps: int
    folder: Path
    node: str = ""
    minutes: float = 0.0
    most_rivals: int = 0
    rivals: Callable[[Sensitivity], Sequence[Formats]] = lambda _: ()

    def record(self, sampling: str) -> ProbeRecord:
        """Return the record of a sampling, by its digest. Deletes all but the latest records."""
        key = digest_of(self.probe.key, sampling)
        path = self.folder / f"{key[:32]}.json"
        if path.exists():
            path.touch()
        discard_oldest(self.folder, _KEPT_RECORDS)
        return ProbeRecord(path, key)

    def is_enough(self) -> Callable[[], bool]:
        """Return what tells whether the minutes that begin now are over."""
        until = time.monotonic() + 60.0 * self.minutes
        return lambda: self.minutes > 0 and time.monotonic() >= until


class _Calls:
    """Counts model calls."""

    def __init__(self) -> None:
        self.count = 0


def probed_clone(model: Any, session: ProbeSession) -> Any:
    """Return a clone of a MODEL that probes every sampling; the samples do not change.

    Before a sampling, it samples with few sigmas: unquantized, then with one unit at a time. What
    a unit moves is saved at once. So a probe that was cancelled goes on where it was, if the same
    sampling is queued again, and ends with the same numbers.

    The hooks exist only while the probe runs. A torch.compile wrapper is removed from the clone,
    because a compiled graph silently loses hooks. Sampling refuses a wrapper that is added later,
    and a calibration, which would record the probe's runs.
    """
    clone = model.clone()
    for wrapper in _WRAPPERS:
        clone.remove_wrappers_with_key(wrapper, PROBE_KEY)
    clone.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY)

    calls = _Calls()

    def sampler_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        chosen = short_schedule(len(args[1]) - 1, session.steps)
        if chosen:
            _probe(session, calls, executor, args[1][list(chosen)], args, kwargs)
        return executor(*args, **kwargs)

    def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        _require_alone(transformer_options(args, kwargs))
        calls.count += 1
        return executor(*args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, PROBE_KEY, sampler_sample)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, PROBE_KEY, apply_model)
    return clone


def _probe(
    session: ProbeSession,
    calls: _Calls,
    executor: Any,
    few: torch.Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Probe a sampling shortened to ``few`` sigmas; ``args`` are those of ``sampler_sample``."""
    # (guider, sigmas, extra_args, callback, noise, latent, mask, disable_pbar), all by position
    guider, _, extra, _, noise, *rest = args
    replay = _random_state(noise.device)

    def run() -> torch.Tensor:
        replay()
        # Samplers may write into any of these. Without a callback, previews show the real one.
        again = {**extra, "model_options": copy_nested_dicts(extra["model_options"])}
        again["model_options"].setdefault("transformer_options", {})["sample_sigmas"] = few
        inputs = [x.clone() if isinstance(x, torch.Tensor) else x for x in (noise, *rest)]
        return executor(guider, few, again, None, *inputs, **kwargs)

    tensors = [v for v in (noise, *rest) if isinstance(v, torch.Tensor)]
    record = session.record(
        digest_of_sampling(
            guider, executor.class_obj, few, tensors, extra.get("seed"), noise.device.type
        )
    )
    ends_early = session.probe.is_selective or session.minutes > 0
    progress = ProbeProgress(
        session.probe, session.node, len(few) - 1, session.most_rivals, at_most=ends_early
    )
    model = guider.model_patcher.model.diffusion_model
    began, called, is_enough = time.monotonic(), calls.count, session.is_enough()
    try:
        reference = run()
        progress.begin(time.monotonic() - began, calls.count - called)
        session.probe.probe(model, run, reference, SAMPLED, progress.advance, record, is_enough)
        mixes = session.rivals(session.probe.result())
        session.probe.sample_whole(model, run, reference, mixes, progress.advance_mix, record)
        progress.finish()
    except BaseException:
        progress.interrupt()
        raise
    finally:
        replay()


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
