"""MODELs: observed while sampling, made from a checkpoint, run as on another GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from comfy.patcher_extension import WrappersMP, get_wrappers_with_key
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from ...quant.conversion.convert import QuantizedModel
from ...quant.errors import SourceError
from ...quant.hardware.emulation import (
    emulate_native_product,
    emulated_layers,
    read_input_roundings,
)
from ...quant.sources import StateDictSource
from .hessian_room import HessianRoom
from .merged_weights import PREFIX
from .sampling_digest import digest_of_sampling

#: The keys of this pack's wrappers.
OBSERVER_KEY, PROBE_KEY = "nvfp4_foundry.observer", "nvfp4_foundry.probe"
_EMULATION_KEY = "nvfp4_foundry.emulation"
# Position of the callback among the arguments of ``outer_sample``.
_CALLBACK = 5


def observed_clone(model: Any, session: Any) -> Any:
    """Return a clone of a MODEL that reports every sampling run to a calibration session.

    The hooks exist only while a sampler runs. A torch.compile wrapper is removed from the clone,
    because a compiled graph silently loses hooks.
    """
    clone = model.clone()
    for wrapper in (WrappersMP.OUTER_SAMPLE, WrappersMP.APPLY_MODEL):
        clone.remove_wrappers_with_key(wrapper, OBSERVER_KEY)
    clone.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY)
    room = HessianRoom()

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        diffusion_model = executor.class_obj.model_patcher.model.diffusion_model
        run = _describe_run(executor.class_obj, args)
        sampler = next(iter(args[2:3]), kwargs.get("sampler"))
        numbers = [v for v in (*args, kwargs.get("seed")) if isinstance(v, (torch.Tensor, int))]
        sampling = digest_of_sampling(executor.class_obj, sampler, numbers)
        args, kwargs = _with_step_callback(args, kwargs, session.end_step)
        with session.observe(diffusion_model, run, sampling), room.kept(session.settings):
            return executor(*args, **kwargs)

    def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        room.release()
        options = transformer_options(args, kwargs)
        session.begin_call(options.get("sigmas"), options.get("cond_or_uncond"))
        return executor(*args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, OBSERVER_KEY, outer_sample)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, OBSERVER_KEY, apply_model)
    return clone


def _with_step_callback(
    args: tuple[Any, ...], kwargs: dict[str, Any], on_step: Callable[[int], None]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of ``outer_sample`` with a callback that also reports the steps done."""
    # (noise, latent_image, sampler, sigmas, denoise_mask, callback, ...)
    given = args[_CALLBACK] if len(args) > _CALLBACK else kwargs.get("callback")

    def callback(step: int, *rest: Any, **named: Any) -> Any:
        on_step(step + 1)
        return given(step, *rest, **named) if given is not None else None

    if len(args) > _CALLBACK:
        return (*args[:_CALLBACK], callback, *args[_CALLBACK + 1 :]), kwargs
    return args, {**kwargs, "callback": callback}


def transformer_options(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a model call from the arguments of ``apply_model``."""
    # (x, t, c_concat, c_crossattn, control, transformer_options); the signature has grown
    return kwargs.get("transformer_options") or next(iter(args[5:6]), None) or {}


def _describe_run(guider: Any, args: tuple[Any, ...]) -> dict[str, Any]:
    """Return the settings of a sampling run to record; ``args`` are those of ``outer_sample``."""
    settings: dict[str, Any] = {"cfg": getattr(guider, "cfg", None)}
    if args and isinstance(args[0], torch.Tensor):
        settings["noise_shape"] = list(args[0].shape)
    for sigmas in args[3:4]:  # (noise, latent_image, sampler, sigmas, ...)
        settings["steps"] = max(0, sigmas.numel() - 1)
    return settings


def model_from_checkpoint(checkpoint: QuantizedModel, original: Any) -> Any:
    """Return a MODEL with quantized weights, loaded as ComfyUI loads the saved file.

    Keeps what other nodes added to the original: sampling shift, options, wrappers. LoRAs are left
    out, because they are already part of the weights.

    Raises:
        SourceError: ComfyUI does not recognise the quantized model.
    """
    model = comfy.sd.load_diffusion_model_state_dict(
        dict(checkpoint.tensors), metadata=dict(checkpoint.metadata)
    )
    if model is None:
        raise SourceError(
            "ComfyUI does not recognise the quantized model by the names that its layers have in "
            "memory; quantize the file that it was loaded from, with nvfp4 quantize"
        )
    for name, patch in original.object_patches.items():
        if not name.startswith(PREFIX.rstrip(".")):
            model.add_object_patch(name, patch)
    model.model_options = comfy.model_patcher.create_model_options_clone(original.model_options)
    for kind, by_key in original.wrappers.items():
        for key, wrappers in by_key.items():
            if key not in (OBSERVER_KEY, PROBE_KEY, COMPILE_KEY):
                for wrapper in wrappers:
                    model.add_wrapper_with_key(kind, key, wrapper)
    return model


def emulate_native_gpu(model: Any, checkpoint: QuantizedModel) -> int:
    """Make a MODEL from `model_from_checkpoint` compute like a GPU with native NVFP4 and float8.

    The hooks exist only while this MODEL is called. They run after the hooks of `observed_clone`,
    so a calibration sees the unrounded inputs. Sampling refuses ``torch.compile``, because a
    compiled graph silently loses hooks.

    Returns:
        How many layers this machine computes differently; the MODEL does not change if none.

    Raises:
        CheckpointError: the MODEL lacks a layer of the checkpoint.
    """
    source = StateDictSource(checkpoint.tensors, metadata=checkpoint.metadata)
    roundings = read_input_roundings(source)
    emulated = len(emulated_layers(model.model.diffusion_model, roundings))

    def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        options = transformer_options(args, kwargs)
        if get_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY, options):
            raise SourceError(
                "an emulated preview cannot be compiled: remove torch.compile, or preview the "
                "model as this machine runs it"
            )
        with emulate_native_product(executor.class_obj.diffusion_model, roundings):
            return executor(*args, **kwargs)

    if emulated:
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, _EMULATION_KEY, apply_model)
    return emulated


def compute_device(working_bytes: int = 0) -> torch.device:
    """Return ComfyUI's device, after making room there for a layer and ``working_bytes``."""
    device = comfy.model_management.get_torch_device()
    if not comfy.model_management.is_device_cpu(device):
        comfy.model_management.free_memory((1 << 30) + working_bytes, device)
    return device
