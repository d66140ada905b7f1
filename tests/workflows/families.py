"""Templates that plan, quantize, sample and save one model, with the stock nodes of its family."""

from __future__ import annotations

from tests.workflows import models as files
from tests.workflows import parts
from tests.workflows.graph import Graph, Link, Node

_STEPS = """\
# {title}
Plans the format of every layer, quantizes the model, samples with the result and saves a \
checkpoint that ComfyUI's own *Load Diffusion Model* loads.

1. **Choose your files** in the loaders of groups 1 and 3. {files}
2. **Press Run.** *Plan Layers* shows the format of every layer and the size of the file. Select \
layers on its map to give them another format.
3. **Look at the sample**, then load the checkpoint. It lies beside its source, under the same \
name with `_nvfp4`.

For static input scales, calibrate first: see the template *Calibrate and quantize a model*."""
_MISSING = "If a file is missing, ComfyUI offers to download it."


def _begin(title: str, where: str = _MISSING) -> Graph:
    return Graph(title, _STEPS.format(title=title, files=where))


def _planned_and_saved(graph: Graph, model: files.Model | str) -> Node:
    graph.group("Load and plan", parts.BLUE)
    loaded = parts.source(graph, model)["MODEL"]
    plan = parts.planned(graph, loaded)["PLAN"]
    graph.group("Quantize and save", parts.PURPLE)
    node = parts.quantized(graph, loaded, plan)
    graph.group("Sample with the quantized model", parts.GREEN)
    return node


def wan_5b() -> Graph:
    """WAN 2.2 TI2V 5B."""
    graph = _begin("Quantize WAN 2.2 5B")
    model = _planned_and_saved(graph, files.WAN_5B)["MODEL"]
    clip, vae = parts.umt5(graph), parts.vae(graph, files.WAN_5B_VAE)
    shifted = graph.node("ModelSamplingSD3", model=model, shift=8.0)["MODEL"]
    latent = graph.node(
        "Wan22ImageToVideoLatent", vae=vae, width=1280, height=704, length=49, batch_size=1
    )["LATENT"]
    graph.column()
    text = "an old lighthouse keeper climbs a spiral staircase, lantern in hand, the camera follows"
    prompts = (
        parts.encoded(graph, clip, text, "Positive prompt"),
        parts.encoded(graph, clip, parts.WAN_NEGATIVE, "Negative prompt"),
    )
    graph.column()
    latents = parts.sampled(graph, shifted, prompts, latent, (20, 5.0, "uni_pc"))
    parts.video(graph, latents, vae, 24.0)
    return graph


def wan_14b() -> Graph:
    """WAN 2.2 T2V 14B: two experts, each with a checkpoint of its own."""
    where = f"The fp16 files of both experts are on [Comfy-Org's page]({files.WAN_PAGE})."
    graph = _begin("Quantize WAN 2.2 14B", where)
    experts: list[Link] = []
    for expert, file in (("High noise", files.WAN_HIGH), ("Low noise", files.WAN_LOW)):
        graph.group(f"{expert}: load, plan, quantize, save", parts.BLUE)
        loaded = parts.source(graph, file, f"{expert} expert")["MODEL"]
        plan = parts.planned(graph, loaded)["PLAN"]
        graph.column()
        experts.append(parts.quantized(graph, loaded, plan)["MODEL"])
    graph.group("Sample with both quantized experts", parts.GREEN)
    clip, vae = parts.umt5(graph), parts.vae(graph, files.WAN_VAE)
    shifted = [graph.node("ModelSamplingSD3", model=m, shift=5.0)["MODEL"] for m in experts]
    latent = graph.node("EmptyHunyuanLatentVideo", width=640, height=640, length=81, batch_size=1)[
        "LATENT"
    ]
    graph.column()
    text = "a paper boat drifts down a rain-filled gutter past autumn leaves, close to the water"
    prompts = (
        parts.encoded(graph, clip, text, "Positive prompt"),
        parts.encoded(graph, clip, parts.WAN_NEGATIVE, "Negative prompt"),
    )
    graph.column()
    latents = _two_experts(graph, shifted, prompts, latent)
    parts.video(graph, latents, vae, 16.0)
    return graph


def _two_experts(
    graph: Graph, models: list[Link], prompts: tuple[Link, Link], latent: Link
) -> Link:
    """Sample the first half of 20 steps with one expert and the rest with the other."""
    for model, first in zip(models, (True, False), strict=True):
        latent = graph.node(
            "KSamplerAdvanced",
            "High noise" if first else "Low noise",
            model=model,
            positive=prompts[0],
            negative=prompts[1],
            latent_image=latent,
            add_noise="enable" if first else "disable",
            noise_seed=1 if first else 0,
            steps=20,
            cfg=3.5,
            sampler_name="euler",
            scheduler="simple",
            start_at_step=0 if first else 10,
            end_at_step=10 if first else 10000,
            return_with_leftover_noise="enable" if first else "disable",
        )["LATENT"]
    return latent


def qwen_image() -> Graph:
    """Qwen-Image 2512."""
    where = f"The bf16 file is on [Comfy-Org's page]({files.QWEN_PAGE})."
    graph = _begin("Quantize Qwen-Image 2512", where)
    model = _planned_and_saved(graph, files.QWEN_2512)["MODEL"]
    clip, vae = parts.qwen_vl(graph), parts.vae(graph, files.QWEN_VAE)
    shifted = graph.node("ModelSamplingAuraFlow", model=model, shift=3.1)["MODEL"]
    latent = graph.node("EmptySD3LatentImage", width=1328, height=1328, batch_size=1)["LATENT"]
    graph.column()
    text = 'a bakery window at dawn, a hand-painted sign that says "fresh bread", warm light'
    prompts = (
        parts.encoded(graph, clip, text, "Positive prompt"),
        parts.encoded(graph, clip, parts.QWEN_NEGATIVE, "Negative prompt"),
    )
    graph.column()
    latents = parts.sampled(graph, shifted, prompts, latent, (50, 4.0, "euler"))
    parts.picture(graph, latents, vae)
    return graph


def qwen_edit() -> Graph:
    """Qwen-Image Edit 2511."""
    graph = _begin("Quantize Qwen-Image Edit 2511")
    model = _planned_and_saved(graph, files.EDIT_2511)["MODEL"]
    clip, vae = parts.qwen_vl(graph), parts.vae(graph, files.QWEN_VAE)
    shifted = graph.node("ModelSamplingAuraFlow", model=model, shift=3.1)["MODEL"]
    guided = graph.node("CFGNorm", model=shifted, strength=1.0)["patched_model"]
    graph.column()
    loaded = graph.node("LoadImage", "Picture to edit", image="example.png")["IMAGE"]
    image = graph.node("FluxKontextImageScale", image=loaded)["IMAGE"]
    latent = graph.node("VAEEncode", pixels=image, vae=vae)["LATENT"]
    graph.column()
    prompts: list[Link] = []
    for title, text in (("Edit", "turn the scene into a snowy winter night"), ("Negative", "")):
        given = {"clip": clip, "vae": vae, "image1": image, "prompt": text}
        encoded = graph.node("TextEncodeQwenImageEditPlus", title, **given)["CONDITIONING"]
        method = graph.node(
            "FluxKontextMultiReferenceLatentMethod",
            conditioning=encoded,
            reference_latents_method="index_timestep_zero",
        )
        prompts.append(method["CONDITIONING"])
    graph.column()
    latents = parts.sampled(graph, guided, (prompts[0], prompts[1]), latent, (40, 4.0, "euler"))
    parts.picture(graph, latents, vae)
    return graph


def flux() -> Graph:
    """Flux.1 dev."""
    graph = _begin("Quantize Flux.1 dev")
    model = _planned_and_saved(graph, files.FLUX_DEV)["MODEL"]
    encoders = graph.node(
        "DualCLIPLoader",
        "",
        (files.CLIP_L, files.T5),
        clip_name1=files.CLIP_L.name,
        clip_name2=files.T5.name,
        type="flux",
        device="default",
    )
    vae = parts.vae(graph, files.FLUX_VAE)
    latent = graph.node("EmptySD3LatentImage", width=1024, height=1024, batch_size=1)["LATENT"]
    graph.column()
    text = "a glass greenhouse full of ferns in heavy rain, seen from inside, soft grey light"
    positive = parts.encoded(graph, encoders["CLIP"], text, "Prompt")
    negative = graph.node("ConditioningZeroOut", conditioning=positive)["CONDITIONING"]
    graph.column()
    latents = parts.sampled(graph, model, (positive, negative), latent, (20, 1.0, "euler"))
    parts.picture(graph, latents, vae)
    return graph
