"""Test-only nodes: a text encoder for the tiny WAN, which knows the ten digits and nothing else."""

import importlib.util
import os
import sys
from pathlib import Path

import torch
from comfy_execution.graph_utils import GraphBuilder


def _load_task():
    root = Path(os.environ["NVFP4_FOUNDRY_ROOT"])
    name = "foundry_under_test"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, root / "__init__.py", submodule_search_locations=[str(root)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return importlib.import_module(f"{name}.demo.digits").load_task()


class DigitsClip:
    """What CLIPTextEncode needs of a CLIP: the first digit in a text is its class."""

    def __init__(self):
        self.task = _load_task()

    def tokenize(self, text):
        return next((int(c) for c in text if c.isdigit()), None)

    def encode_from_tokens_scheduled(self, tokens):
        if tokens is None:
            context = self.task.empty_context
        else:
            context = self.task.contexts(torch.tensor([tokens]))
        return [[context.float(), {}]]


class DigitsTextEncoder:
    """Gives the CLIP."""

    CATEGORY = "test"
    FUNCTION = "load"
    RETURN_TYPES = ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - ComfyUI's V1 name
        return {"required": {}}

    def load(self):
        return (DigitsClip(),)


NODE_CLASS_MAPPINGS = {"DigitsTextEncoder": DigitsTextEncoder}


class HookCount:
    """Shows how many forward hooks the modules of a model carry."""

    CATEGORY = "test"
    FUNCTION = "count"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",), "nonce": ("INT", {"default": 0})}}

    def count(self, model, nonce):
        modules = model.model.diffusion_model.modules()
        hooks = (len(m._forward_pre_hooks) + len(m._forward_hooks) for m in modules)
        return {"ui": {"text": [str(sum(hooks))]}}


NODE_CLASS_MAPPINGS["HookCount"] = HookCount


class ExpandedQuantize:
    """Becomes a graph that quantizes the model, as the loops of some packs do."""

    CATEGORY = "test"
    FUNCTION = "expand"
    RETURN_TYPES = ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",), "plan": ("NVFP4_PLAN",)}}

    def expand(self, model, plan):
        graph = GraphBuilder()
        node = graph.node(
            "NVFP4FoundryQuantizeModel", model=model, plan=plan, preview="as this machine runs it"
        )
        return {"result": (node.out(0),), "expand": graph.finalize()}


NODE_CLASS_MAPPINGS["ExpandedQuantize"] = ExpandedQuantize
