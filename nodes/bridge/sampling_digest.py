"""Recognise a sampling that is queued again: a digest of everything that was asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

# ComfyUI gives every conditioning a new one in every run.
_NEW_EACH_TIME = ("uuid",)


def digest_of(*values: Any) -> str:
    """Return a SHA-256 in hex of tensors, numbers, texts, and nested dicts and lists of them.

    The order of the keys of a dict does not count. Of other objects only the class counts, and
    what they have as ``cond`` (ComfyUI's conditionings). Reads tensors from their devices.
    """
    found = hashlib.sha256()
    _update(found, values)
    return found.hexdigest()


def digest_of_sampling(guider: Any, sampler: Any, *values: Any) -> str:
    """Return the digest of a sampling: conditionings, guidance, sampler, and ``values``.

    ``values`` are its noise, latent, sigmas, mask and seed, in any order.
    """
    function = getattr(sampler, "sampler_function", sampler)
    return digest_of(
        getattr(guider, "conds", {}),
        getattr(guider, "cfg", None),
        getattr(function, "__name__", type(function).__name__),
        getattr(sampler, "extra_options", {}),
        *values,
    )


def _update(found: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        found.update(f"tensor {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        found.update(b"{")
        for key in sorted(value, key=str):
            if key not in _NEW_EACH_TIME:
                _update(found, str(key))
                _update(found, value[key])
        found.update(b"}")
    elif isinstance(value, (list, tuple)):
        found.update(b"[")
        for item in value:
            _update(found, item)
        found.update(b"]")
    elif value is None or isinstance(value, (str, int, float)):
        found.update(json.dumps([type(value).__name__, value]).encode())
    else:
        found.update(type(value).__qualname__.encode())
        _update(found, getattr(value, "cond", None))
