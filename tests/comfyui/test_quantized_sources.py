"""Models that others quantized, loaded by our node, calibrated and quantized in a real ComfyUI."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import comfy_workflows as wf
import pytest
import torch
from comfy_server import TINY, ComfyServer
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file, save_file

_MAKERS = Path(__file__).parents[1] / "quant" / "quantized_files.py"
_spec = importlib.util.spec_from_file_location("quantized_files", _MAKERS)
assert _spec and _spec.loader
quantized_files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(quantized_files)


@pytest.mark.parametrize("kind", ["scaled fp8", "ComfyUI nvfp4", "ModelOpt", "float8 by rows"])
def test_calibrates_and_quantizes(server: ComfyServer, kind: str) -> None:
    name = kind.replace(" ", "_")
    folder = server.base / "models/diffusion_models"
    tensors = quantized_files.MAKERS[kind](load_file(TINY))
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / f"{name}.safetensors")
    workflow = wf.calibrate(seed=1, name=name, file_name=f"{name}_out")
    wf.inputs(workflow, "NVFP4FoundryLoadModel")["model_file"] = (
        f"diffusion_models/{name}.safetensors"
    )
    run = server.run(workflow)
    assert run.status == "success", run.error
    made = folder / f"{name}_out.safetensors"
    with open_source(folder / f"{name}.safetensors") as source, open_source(made) as result:
        assert set(source.tensors) == set(result.tensors)
        same = 0
        for tensor in source.tensors:
            before, after = source.load(tensor).float(), result.load(tensor).float()
            error = float((after - before).norm() / before.norm().clamp(min=1e-9))
            assert error < 0.12, tensor
            stored = result.stored_weight(tensor)
            assert stored is None or stored.input_amax() is not None, tensor
            same += error == 0 and stored is not None
    assert (same > 0) == (kind != "float8 by rows")  # taken over where the preset asks for the same
    assert all(bool(torch.isfinite(t.float()).all()) for t in load_file(made).values())
