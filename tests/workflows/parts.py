"""The pieces that several templates share."""

from __future__ import annotations

from tests.workflows import models as files
from tests.workflows.graph import Graph, Link, Model, Node

BLUE, GREEN, PURPLE, ORANGE = "#3f789e", "#3f7d4f", "#6b4f8f", "#8a6a2f"
WAN_NEGATIVE = "blurry, static, overexposed, subtitles, worst quality"
QWEN_NEGATIVE = "low resolution, deformed hands, oversaturated, blurry text"


def source(graph: Graph, model: Model | str, title: str = "") -> Node:
    """Add the node that loads the model to quantize."""
    name = model if isinstance(model, str) else model.name
    links = () if isinstance(model, str) else (model,)
    return graph.node("LoadSourceModel", title, links, model_file=f"diffusion_models/{name}")


def planned(graph: Graph, model: Link, recipe: Link | None = None) -> Node:
    """Add the plan of a model, with the automatic preset unless there is a recipe."""
    if recipe is None:
        recipe = graph.node("SelectPreset", preset="auto")["RECIPE"]
    graph.column()
    return graph.node("PlanLayers", model=model, recipe=recipe)


def quantized(graph: Graph, model: Link, plan: Link, statistics: Link | None = None) -> Node:
    """Add the nodes that quantize a model and save it under the name of its source."""
    given = {} if statistics is None else {"statistics": statistics}
    node = graph.node(
        "QuantizeModel", model=model, plan=plan, preview="as this machine runs it", **given
    )
    graph.column()
    graph.node("SaveCheckpoint", checkpoint=node["CHECKPOINT"])
    return node


def umt5(graph: Graph) -> Link:
    """Add WAN's text encoder."""
    loader = graph.node(
        "CLIPLoader", "", (files.UMT5,), clip_name=files.UMT5.name, type="wan", device="default"
    )
    return loader["CLIP"]


def qwen_vl(graph: Graph) -> Link:
    """Add the text encoder of Qwen-Image."""
    name = files.QWEN_VL.name
    loader = graph.node(
        "CLIPLoader", "", (files.QWEN_VL,), clip_name=name, type="qwen_image", device="default"
    )
    return loader["CLIP"]


def vae(graph: Graph, model: Model) -> Link:
    """Add a VAE."""
    return graph.node("VAELoader", "", (model,), vae_name=model.name)["VAE"]


def encoded(graph: Graph, clip: Link, text: str | Link, title: str) -> Link:
    """Add an encoded prompt."""
    return graph.node("CLIPTextEncode", title, clip=clip, text=text)["CONDITIONING"]


def sampled(
    graph: Graph,
    model: Link,
    prompts: tuple[Link, Link],
    latent: Link,
    settings: tuple[int, float, str],
    *,
    seed: int = 1,
) -> Link:
    """Add a sampler; the settings are steps, CFG scale and sampler."""
    steps, cfg, sampler = settings
    node = graph.node(
        "KSampler",
        model=model,
        positive=prompts[0],
        negative=prompts[1],
        latent_image=latent,
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name=sampler,
        scheduler="simple",
    )
    return node["LATENT"]


def video(graph: Graph, latent: Link, vae_link: Link, fps: float) -> None:
    """Add the nodes that decode a latent and save a video."""
    images = graph.node("VAEDecode", samples=latent, vae=vae_link)["IMAGE"]
    made = graph.node("CreateVideo", images=images, fps=fps)["VIDEO"]
    graph.node("SaveVideo", video=made, filename_prefix="video/nvfp4", format="auto", codec="auto")


def picture(graph: Graph, latent: Link, vae_link: Link) -> None:
    """Add the nodes that decode a latent and save a picture."""
    images = graph.node("VAEDecode", samples=latent, vae=vae_link)["IMAGE"]
    graph.node("SaveImage", images=images, filename_prefix="nvfp4")
