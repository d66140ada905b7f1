"""The same sampling has the same digest, another one has another."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from nvfp4_foundry.nodes.bridge.sampling_digest import digest_of, digest_of_sampling


class Cond:
    """Like ComfyUI's conditionings, which hold their tensor as ``cond``."""

    def __init__(self, cond: torch.Tensor):
        self.cond = cond


class Guider:
    cfg: float = 4.0

    def __init__(self, uuid: str = "1"):
        text = torch.arange(6.0).reshape(2, 3)
        entry = {"uuid": uuid, "model_conds": {"c_crossattn": Cond(text)}, "strength": 1.0}
        self.conds = {"positive": [entry], "negative": [{**entry, "cross_attn": -text}]}


class Sampler:
    def __init__(self, function: Any):
        self.sampler_function, self.extra_options = function, {"eta": 1.0}


def euler() -> None: ...


def heun() -> None: ...


NOISE = torch.linspace(0, 1, 8, dtype=torch.bfloat16)


def test_the_same_again_is_the_same() -> None:
    first = digest_of_sampling(Guider("1"), Sampler(euler), NOISE, 7)
    assert digest_of_sampling(Guider("2"), Sampler(euler), NOISE.clone(), 7) == first


@pytest.mark.parametrize("change", ["text", "negative", "cfg", "sampler", "eta", "noise", "seed"])
def test_whatever_changes_changes_the_digest(change: str) -> None:
    guider, sampler, noise, seed = Guider(), Sampler(euler), NOISE, 7
    first = digest_of_sampling(guider, sampler, noise, seed)
    if change == "text":
        guider.conds = copy.deepcopy(guider.conds)
        guider.conds["positive"][0]["model_conds"]["c_crossattn"].cond[0, 0] += 1
    elif change == "negative":
        guider.conds["negative"][0]["cross_attn"][1, 2] = 5
    elif change == "cfg":
        guider.cfg = 4.5
    elif change == "sampler":
        sampler = Sampler(heun)
    elif change == "eta":
        sampler.extra_options["eta"] = 0.5
    elif change == "noise":
        noise = noise * 2
    else:
        seed = 8
    assert digest_of_sampling(guider, sampler, noise, seed) != first


def test_order_of_keys_and_kinds_of_numbers() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert len({digest_of(v) for v in (1, 1.0, "1", True, [1], [[1]], None)}) == 7
    assert digest_of(torch.zeros(2)) != digest_of(torch.zeros(2, 1))
    assert digest_of(object()) == digest_of(object())
    digest_of(torch.zeros(()), torch.zeros(0), torch.ones(3, 4).t())
