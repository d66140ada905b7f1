"""Sources of every model that ComfyUI knows: nothing is taken for something else on the way in."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.sources import find_naming, find_prefix
from nvfp4_foundry.quant.sources.base import TensorInfo, TensorSource
from nvfp4_foundry.quant.sources.recognised import require_complete, require_model

from tests.data import manifests
from tests.data.model_configs import DIFFUSION

#: Prefixes that ComfyUI removes as it loads a diffusion model.
PREFIXES = ("model.diffusion_model.", "model.", "net.")


class Names(TensorSource):
    """A source that has names and shapes and no values."""

    description = "the file"

    def __init__(self, shapes: manifests.Manifest):
        self.metadata = {}
        self._tensors = {n: TensorInfo(n, s, torch.bfloat16) for n, s in shapes.items()}

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        raise AssertionError("nothing is loaded to recognise a file")


@pytest.mark.parametrize("model", DIFFUSION)
def test_names_stay_as_they_are(model: str) -> None:
    """JoyImage has layers named like those of WAN in diffusers."""
    shapes = manifests.load_key_list(model)
    assert find_naming(shapes) is None
    assert find_prefix(shapes) == ""


@pytest.mark.parametrize("model", DIFFUSION)
def test_prefixes_are_removed(model: str) -> None:
    for prefix in PREFIXES:
        names = [prefix + name for name in manifests.load_key_list(model)]
        assert find_prefix(names) == prefix


@pytest.mark.parametrize("model", DIFFUSION)
def test_it_is_a_whole_model(model: str) -> None:
    """Names of parts such as ``adaln_lora`` or ``decoder`` are no sign of a LoRA or a VAE."""
    source = Names(manifests.load_key_list(model))
    require_model(source)
    require_complete(source)
