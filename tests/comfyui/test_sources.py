"""Sources that stock ComfyUI does not load: GGUF, and WAN with the names of diffusers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.sources.wan_names import wan_to_diffusers
from safetensors.torch import load_file, save_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer, RejectedError
from tests.helpers.gguf_files import write_gguf

PATCH = "patch_embedding.weight"
GGUF, DIFFUSERS, TINY_NAME = (
    f"diffusion_models/{name}"
    for name in ("tiny.gguf", "diffusers.safetensors", "tiny_wan.safetensors")
)


@pytest.fixture(scope="module")
def files(server: ComfyServer) -> dict[str, Path]:
    """The tiny model as a GGUF without patch embedding, and with the names of diffusers."""
    folder = server.base / "models" / "diffusion_models"
    tensors = load_file(TINY)
    held = {name: tensor for name, tensor in tensors.items() if name != PATCH}
    write_gguf(folder / "tiny.gguf", held, gguf_type)
    save_file(
        {wan_to_diffusers(name): tensor for name, tensor in tensors.items()},
        folder / "diffusers.safetensors",
    )
    return {GGUF: folder / "tiny.gguf", DIFFUSERS: folder / "diffusers.safetensors"}


def gguf_type(name: str, tensor: torch.Tensor) -> str:
    if tensor.dim() != 2 or not name.startswith("blocks."):
        return "F32"
    return "Q8_0" if name.endswith(".v.weight") else "Q4_0"


def completed(name: str) -> dict[str, str]:
    return {"complete_from": TINY_NAME} if name == GGUF else {}


def require_sampled(server: ComfyServer, name: str) -> None:
    """Sample a saved checkpoint with stock nodes; everything has to be finite and not flat."""
    prefix = f"sampled_{Path(name).stem}"
    run = server.run(wf.sample(name, prefix=prefix))
    assert run.status == "success", run.error
    (saved,) = (server.base / "output").glob(f"{prefix}_*.latent")
    latent = load_file(saved)["latent_tensor"]
    assert bool(torch.isfinite(latent).all()) and float(latent.std()) > 0


@pytest.mark.parametrize("name", [GGUF, DIFFUSERS], ids=["gguf", "diffusers"])
def test_loaded_calibrated_quantized_and_sampled(
    name: str, server: ComfyServer, files: dict[str, Path]
) -> None:
    out = f"loaded_{files[name].stem}"
    workflow = wf.calibrate(seed=1, name=out, file_name=out)
    wf.inputs(workflow, "NVFP4FoundryLoadSourceModel").update(model_file=name, **completed(name))
    run = server.run(workflow)
    assert run.status == "success", run.error
    made = server.base / "models/diffusion_models" / f"{out}.safetensors"
    second = TINY if name == GGUF else None
    assert verify_checkpoint(made, files[name], complete_from=second).problems == ()
    report = run.text(wf.node(workflow, "NVFP4FoundrySaveCheckpoint"))
    assert ("Q4_0" if name == GGUF else "names of diffusers") in report  # read from the file
    require_sampled(server, made.name)


@pytest.mark.parametrize("name", [GGUF, DIFFUSERS], ids=["gguf", "diffusers"])
def test_quantize_file_by_the_recipe_of_the_gguf(
    name: str, server: ComfyServer, files: dict[str, Path]
) -> None:
    out = f"file_{files[name].stem}"
    workflow = wf.without(wf.quantize_file(), "NVFP4FoundrySelectPreset")
    wf.load_recipe(
        workflow, "recipe", "GGUF", gguf_file=GGUF, bits_limit=4,
        higher="float8_e4m3fn", edge_blocks=0, edge_format="bf16",
    )  # fmt: skip
    values = {"model_file": name, "file_name": out, "recipe": ["recipe", 0], **completed(name)}
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile").update(values)
    run = server.run(workflow)
    assert run.status == "success", run.error
    made = server.base / "models/diffusion_models" / f"{out}.safetensors"
    second = TINY if name == GGUF else None
    assert verify_checkpoint(made, files[name], complete_from=second).problems == ()
    stored = load_file(made)
    assert stored["blocks.0.ffn.0.weight"].dtype == torch.uint8
    assert stored["blocks.0.self_attn.v.weight"].dtype == torch.float8_e4m3fn
    assert stored["head.head.weight"].dtype == torch.float32  # F32 in the GGUF
    assert torch.equal(stored[PATCH], load_file(TINY)[PATCH])
    require_sampled(server, made.name)


@pytest.mark.parametrize(
    "act",
    [
        lambda w: wf.inputs(w, "NVFP4FoundryQuantizeFile").update(model_file=GGUF),
        lambda w: wf.inputs(w, "NVFP4FoundryQuantizeFile").update(
            model_file=TINY_NAME, complete_from=DIFFUSERS
        ),
    ],
)
def test_what_cannot_be_opened_is_refused_before_the_queue_runs(
    act: Callable[[wf.Workflow], None], server: ComfyServer, files: dict[str, Path]
) -> None:
    workflow = wf.quantize_file()
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["preset"] = "wan2.2-14b"
    act(workflow)
    with pytest.raises(RejectedError, match=r"lacks patch_embedding\.weight|no tensor that"):
        server.run(workflow)


def test_a_gguf_that_lacks_something_says_so_when_it_is_loaded(
    server: ComfyServer, files: dict[str, Path]
) -> None:
    workflow = wf.calibrate(name="lacking", file_name="lacking")
    wf.inputs(workflow, "NVFP4FoundryLoadSourceModel")["model_file"] = GGUF
    run = server.run(workflow)
    assert "lacks patch_embedding.weight" in run.error and "complete_from" in run.error
