"""Compares the demo model with ComfyUI's WAN: ``python compare_tiny_wan.py RESULT.json``.

Runs in ComfyUI's Python with ComfyUI's folder as ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

result_path = Path(sys.argv[1])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_management  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402
import torch  # noqa: E402
from foundry_package import import_foundry  # noqa: E402

import_foundry()

from nvfp4_foundry.demo.digits import load_task  # noqa: E402
from nvfp4_foundry.demo.judge import load_judge  # noqa: E402
from nvfp4_foundry.demo.model import MODEL_PATH, load_model  # noqa: E402
from nvfp4_foundry.demo.sampling import sample  # noqa: E402


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Norm of the difference over the norm of ComfyUI's."""
    return ((ours - theirs).norm() / theirs.norm()).item()


def load_in_comfyui(dtype: torch.dtype) -> comfy.model_patcher.ModelPatcher:
    """ComfyUI's model of the same file, with its weights in place."""
    patcher = comfy.sd.load_diffusion_model(str(MODEL_PATH), model_options={"dtype": dtype})
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    return patcher


@torch.inference_mode()
def forward_error(dtype: torch.dtype, shape: tuple[int, ...], tokens: int) -> float:
    """Relative error of one forward call on random inputs."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(shape, generator=generator).to(dtype)
    context = torch.randn(shape[0], tokens, 4096, generator=generator).to(dtype)
    timestep = torch.linspace(1000, 20, shape[0])
    theirs = load_in_comfyui(dtype).model.diffusion_model(latent, timestep, context=context)
    ours = load_model(dtype=dtype)(latent, timestep, context)
    return relative_error(ours.float(), theirs.float())


def sampling_comparison(labels: list[int], seed: int, steps: int) -> dict[str, float]:
    """Sample the same digits with ComfyUI's euler and simple, and with ours."""
    task = load_task()
    patcher = load_in_comfyui(torch.float32)
    positive = [[task.contexts(labels).float(), {}]]
    negative = [[task.empty_context.float(), {}]]
    empty = torch.zeros(len(labels), 16, 1, 8, 8)
    noise = comfy.sample.prepare_noise(empty, seed)
    result = comfy.sample.sample(
        patcher, noise, steps, 2.0, "euler", "simple", positive, negative, empty, seed=seed
    )
    theirs = patcher.model.process_latent_in(result)
    ours = sample(load_model(), labels, seed, steps=steps, cfg=2.0, task=task)
    return {
        "error": relative_error(ours, theirs),
        "accuracy": load_judge().accuracy(task.decode(theirs), labels),
    }


if __name__ == "__main__":
    labels = [digit for digit in range(10) for _ in range(4)]
    result = {
        "model_class": type(load_in_comfyui(torch.float32).model).__name__,
        "forward_float32": forward_error(torch.float32, (3, 16, 1, 8, 8), tokens=4),
        "forward_float32_video": forward_error(torch.float32, (2, 16, 3, 6, 10), tokens=7),
        "forward_bfloat16": forward_error(torch.bfloat16, (3, 16, 1, 8, 8), tokens=4),
        "sampling": sampling_comparison(labels, seed=7, steps=20),
    }
    result_path.write_text(json.dumps(result))
