"""A small random model that stock ComfyUI builds, loads and samples as it does the real one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import comfy.model_detection
import comfy.nested_tensor
import comfy.ops
import torch

Values = Mapping[str, Any]
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Ids:
    """Random whole numbers below ``high``."""

    shape: tuple[int, ...]
    high: int


@dataclass(frozen=True)
class Seen:
    """What an image encoder gives, as random values."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """A tiny model, and what it samples from.

    ``build`` names the class, below ``comfy.ldm``. ``config`` is what ComfyUI's detection reads off
    the file; ``sizes`` are what it knows at one value only and is told here, once it has recognised
    the model; ``marks`` those of them by which it tells the model from others; ``parts`` are
    arguments of inner classes that nothing but the code decides. ``beside`` are modules whose
    tensors are in the file beside the model, by prefix.

    ``latent`` and ``context`` are shapes (a list of shapes: a nested latent); ``pooled`` is the
    width of the pooled text, or 0; ``masked`` whether the text comes with a mask; ``extra`` what
    else the text carries: shapes of random tensors, or values. ``published`` turns
    the tensors of ComfyUI's modules into those of its makers' files, where ComfyUI renames them;
    ``prefix`` is what the files have before the names of layers.
    """

    build: str
    config: Values
    latent: tuple[Any, ...]
    context: tuple[int, ...]
    pooled: int = 0
    masked: bool = False
    extra: Values = field(default_factory=dict)
    sizes: Values = field(default_factory=dict)
    marks: Values = field(default_factory=dict)
    parts: Mapping[str, Values] = field(default_factory=dict)
    beside: Mapping[str, tuple[str, Values]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    published: Callable[[Tensors], Tensors] = dict
    prefix: str = ""

    def tensors(self) -> Tensors:
        """Return random weights that neither vanish nor explode, as in a file of its makers.

        They are the same every time.
        """
        with self.small():
            model = _class(self.build)(
                **{**self.config, **self.sizes},
                device="cpu", dtype=torch.float32, operations=comfy.ops.manual_cast,
            )  # fmt: skip
        found = dict(model.state_dict())
        for prefix, (path, values) in self.beside.items():
            others = _class(path)(**values).state_dict()
            found |= {prefix + name: tensor for name, tensor in others.items()}
        generator = torch.Generator().manual_seed(1)
        random = {name: _weights(name, tensor, generator) for name, tensor in found.items()}
        return self.published(random)

    @contextmanager
    def small(self) -> Iterator[None]:
        """Let ComfyUI build the model at its small size."""
        detect = comfy.model_detection.detect_unet_config
        match = comfy.model_detection.model_config_from_unet_config

        def marked(*args: Any, **named: Any) -> Any:
            found = detect(*args, **named)
            return found and {**found, **self.marks}

        def sized(*args: Any, **named: Any) -> Any:
            found = match(*args, **named)
            if found is not None:
                found.unet_config.update(self.sizes)
            return found

        with ExitStack() as stack:
            patch = partial(mock.patch.object, comfy.model_detection)
            stack.enter_context(patch("detect_unet_config", marked))
            stack.enter_context(patch("model_config_from_unet_config", sized))
            for path, values in self.parts.items():
                module, name = _place(path)
                inner = partial(getattr(module, name), **values)
                stack.enter_context(mock.patch.object(module, name, inner))
            yield

    def empty_latent(self) -> Any:
        """Return zeros of the latent's shape."""
        if isinstance(self.latent[0], int):
            return torch.zeros(self.latent)
        return comfy.nested_tensor.NestedTensor([torch.zeros(shape) for shape in self.latent])

    def conditioning(self) -> list[Any]:
        """Return random conditioning, the same every time."""
        generator = torch.Generator().manual_seed(2)
        extra: dict[str, Any] = {"guidance": 3.5}
        if self.masked:
            extra["attention_mask"] = torch.ones(self.context[:2], dtype=torch.long)
        if self.pooled:
            extra["pooled_output"] = torch.randn(1, self.pooled, generator=generator)
        text = torch.randn(self.context, generator=generator)
        extra |= {name: _values(value, generator) for name, value in self.extra.items()}
        return [[text, extra]]


def _place(path: str) -> tuple[Any, str]:
    """Return the module below ``comfy.ldm`` of ``module:name``, and the name."""
    module, name = path.split(":")
    return importlib.import_module(f"comfy.ldm.{module}"), name


def _class(path: str) -> Any:
    """Return the class of ``module:name`` below ``comfy.ldm``."""
    module, name = _place(path)
    return getattr(module, name)


def _weights(name: str, built: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return random weights of a layer, around 1 for the factors of a norm."""
    if not built.is_floating_point():
        return built
    fan_in = built.shape[1:].numel() if built.dim() > 1 else 1
    values = torch.randn(built.shape, generator=generator)
    is_norm = built.dim() == 1 and name.endswith("weight")
    return 1 + 0.1 * values if is_norm else values / fan_in**0.5 * 0.7


def _values(wanted: Any, generator: torch.Generator) -> Any:
    """Return random values of a shape; what is no shape is returned as it is."""
    if isinstance(wanted, tuple):
        return torch.randn(wanted, generator=generator)
    if isinstance(wanted, list):
        return [_values(each, generator) for each in wanted]
    if isinstance(wanted, Ids):
        return torch.randint(wanted.high, wanted.shape, generator=generator)
    if isinstance(wanted, Seen):
        states = torch.randn(wanted.shape, generator=generator)
        return SimpleNamespace(penultimate_hidden_states=states, last_hidden_state=states)
    return wanted
