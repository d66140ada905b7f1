"""Templates by task: convert a file, calibrate, measure and mix, compare, sample."""

from __future__ import annotations

from tests.workflows import models as files
from tests.workflows import parts
from tests.workflows.graph import Graph, Link

_NAME = "wan2.2-t2v-low-noise"
_T2V = (8, 3.5, "euler")


def quantize_file() -> Graph:
    """From file to file with one node."""
    graph = Graph(
        "Quantize a model file",
        "# Quantize a model file\nConverts a model file to an NVFP4 checkpoint, one layer at a "
        "time: it needs little memory, however large the model is.\n\n"
        "1. **Choose the model**: safetensors, shards or GGUF, a diffusion model or a text "
        "encoder.\n"
        "2. **Press Run.** The preset for the model is chosen automatically.\n"
        "3. **Load the checkpoint** with *Load Diffusion Model*, or *Load CLIP* for a text "
        "encoder. Without a name, it gets the name of its source with `_nvfp4`.\n\n"
        "For other formats, connect *Select NVFP4 Preset*. For static input scales, connect "
        "*Load Calibration*.",
    )
    graph.group("Convert a file", parts.PURPLE)
    name = files.WAN_5B.name
    graph.node("QuantizeFile", "", (files.WAN_5B,), model_file=f"diffusion_models/{name}")
    return graph


def _calibrated(graph: Graph) -> tuple[Link, Link, Link, tuple[Link, Link]]:
    """Return the model, its plan, its calibration, and the text encoder with the negative."""
    graph.group("Load and plan", parts.BLUE)
    model = parts.source(graph, files.WAN_LOW)["MODEL"]
    plan = parts.planned(graph, model)["PLAN"]
    graph.group("Sample a few prompts with the observed model", parts.GREEN)
    clip = parts.umt5(graph)
    deck = graph.node("CalibrationPrompts", deck="built-in: video", limit=4)["prompts"]
    observed = graph.node("Calibrate", model=model, name=_NAME, prompts=deck)
    latent = graph.node("EmptyHunyuanLatentVideo", width=832, height=480, length=17, batch_size=1)[
        "LATENT"
    ]
    graph.column()
    positive = parts.encoded(graph, clip, deck, "Positive prompts")
    negative = parts.encoded(graph, clip, parts.WAN_NEGATIVE, "Negative prompt")
    shifted = graph.node("ModelSamplingSD3", model=observed["MODEL"], shift=8.0)["MODEL"]
    latents = parts.sampled(graph, shifted, (positive, negative), latent, _T2V)
    graph.column()
    result = graph.node("CalibrationResult", calibration=observed["SESSION"], latent=latents)
    return model, plan, result["CALIBRATION"], (clip, negative)


def calibrate() -> Graph:
    """Calibrate while sampling, quantize, save."""
    graph = Graph(
        "Calibrate and quantize a model",
        "# Calibrate and quantize a model\nRecords what every layer receives while you sample a "
        "few prompts, and quantizes the model with static input scales.\n\n"
        "1. **Choose your files** in *Load Source Model* and *Load CLIP*, and give *Calibrate* a "
        "name for this model.\n"
        "2. **Press Run.** It samples four prompts of a built-in deck. Type your own in "
        "*Calibration Prompts*: prompts like yours calibrate best.\n"
        "3. **Load the checkpoint** with *Load Diffusion Model*. It has the name of its source "
        "with `_nvfp4`.\n\n"
        "This is the low-noise expert of WAN 2.2 14B. Calibrate the high-noise expert the same "
        f"way, under another name. The fp16 files are on [Comfy-Org's page]({files.WAN_PAGE}). "
        "For another model, replace the nodes of group 2 with those that you sample it with.",
    )
    model, plan, statistics, _ = _calibrated(graph)
    graph.group("Quantize and save", parts.PURPLE)
    parts.quantized(graph, model, plan, statistics)
    return graph


def measure() -> Graph:
    """Measure and probe the layers, let the measurements choose the formats."""
    graph = Graph(
        "Measure layers and mix formats",
        "# Measure layers and mix formats\nMeasures what each layer loses in each format and "
        "chooses the best mix for a file size, bits per weight or an error.\n\n"
        "1. **Choose your files** and names, as in *Calibrate and quantize a model*.\n"
        "2. **Press Run.** The probe is slow: it samples a small video once for each input of "
        "the model. It saves its result, which *Probe Result* loads again later.\n"
        "3. **Choose a budget** in *Auto Mix*: drag along its curve. Only *Auto Mix* and what "
        "follows it run again.",
    )
    model, plan, statistics, (clip, negative) = _calibrated(graph)
    sensitivity = _probed(graph, model, plan, statistics, clip, negative)
    graph.group("Mix, quantize and save", parts.PURPLE)
    mix = graph.node("AutoMix", model=model, plan=plan, sensitivity=sensitivity, save_as=_NAME)
    graph.column()
    parts.quantized(graph, model, mix["PLAN"], statistics)
    return graph


def _probed(
    graph: Graph, model: Link, plan: Link, statistics: Link, clip: Link, negative: Link
) -> Link:
    graph.group("Measure and probe", parts.ORANGE)
    measured = graph.node("MeasureSensitivity", model=model, statistics=statistics)["SENSITIVITY"]
    graph.column()
    given = {"model": model, "statistics": statistics, "plan": plan}
    probe = graph.node("ProbeLatentShift", sensitivity=measured, **given)
    text = "a fox walks through fresh snow, morning light, the camera follows"
    positive = parts.encoded(graph, clip, text, "Prompt to probe with")
    small = graph.node(
        "EmptyHunyuanLatentVideo",
        "Small latent to probe with",
        width=480,
        height=272,
        length=9,
        batch_size=1,
    )["LATENT"]
    shifted = graph.node("ModelSamplingSD3", model=probe["MODEL"], shift=8.0)["MODEL"]
    latents = parts.sampled(graph, shifted, (positive, negative), small, _T2V, seed=2)
    graph.column()
    result = graph.node("ProbeResult", probe=probe["PROBE"], latent=latents, save_as=_NAME)
    return result["SENSITIVITY"]


def compare() -> Graph:
    """Sample one seed with the original and the quantized model, measure the difference."""
    graph = Graph(
        "Compare original and quantized",
        "# Compare original and quantized\nSamples the same seed with both models "
        "and measures how far the results are apart.\n\n"
        "1. **Choose both files**: the original and the checkpoint made from it.\n"
        "2. **Press Run.** Both samplers must have the same prompt, seed and steps.\n"
        "3. **Read the two comparisons**: of the latents, which is what quantization moves, and "
        "of the decoded pictures.",
    )
    graph.group("Original and quantized model", parts.BLUE)
    stem = files.QWEN_2512.removesuffix(".safetensors")
    named = (("Original", files.QWEN_2512), ("Quantized", f"{stem}_nvfp4.safetensors"))
    loaded = [
        graph.node("UNETLoader", title, unet_name=name, weight_dtype="default")["MODEL"]
        for title, name in named
    ]
    shifted = [graph.node("ModelSamplingAuraFlow", model=m, shift=3.1)["MODEL"] for m in loaded]
    clip, vae = parts.qwen_vl(graph), parts.vae(graph, files.QWEN_VAE)
    graph.group("Sample the same seed", parts.GREEN)
    latent = graph.node("EmptySD3LatentImage", width=1328, height=1328, batch_size=1)["LATENT"]
    text = "a market stall with pyramids of oranges and lemons, afternoon sun, film photograph"
    prompts = (
        parts.encoded(graph, clip, text, "Positive prompt"),
        parts.encoded(graph, clip, parts.QWEN_NEGATIVE, "Negative prompt"),
    )
    graph.column()
    latents = [parts.sampled(graph, m, prompts, latent, (20, 4.0, "euler")) for m in shifted]
    images = [graph.node("VAEDecode", samples=samples, vae=vae)["IMAGE"] for samples in latents]
    graph.group("Compare", parts.PURPLE)
    graph.node("CompareSamples", "Compare latents", reference=latents[0], other=latents[1])
    graph.node("CompareSamples", "Compare pictures", reference=images[0], other=images[1])
    return graph


def sample() -> Graph:
    """Sample a saved checkpoint with stock nodes only."""
    graph = Graph(
        "Sample a quantized model",
        "# Sample a quantized model\nSamples a saved checkpoint. All nodes are ComfyUI's own: a "
        "checkpoint needs no custom node.\n\n"
        "1. **Choose the checkpoint** in *Load Diffusion Model*. It is in `diffusion_models`.\n"
        "2. **Press Run.**\n"
        "3. **Compare it** with its original: see *Compare original and quantized*."
        "\n\nAdd a LoRA with *Load LoRA (Bypass)*: *Load LoRA* would round the weights again.",
    )
    graph.group("Load", parts.BLUE)
    stem = files.WAN_LOW.removesuffix(".safetensors")
    name = f"{stem}_nvfp4.safetensors"
    model = graph.node("UNETLoader", unet_name=name, weight_dtype="default")["MODEL"]
    clip, vae = parts.umt5(graph), parts.vae(graph, files.WAN_VAE)
    graph.group("Sample", parts.GREEN)
    text = "a dog runs along a beach towards the camera, waves break behind it"
    prompts = (
        parts.encoded(graph, clip, text, "Positive prompt"),
        parts.encoded(graph, clip, parts.WAN_NEGATIVE, "Negative prompt"),
    )
    latent = graph.node("EmptyHunyuanLatentVideo", width=832, height=480, length=17, batch_size=1)[
        "LATENT"
    ]
    graph.column()
    shifted = graph.node("ModelSamplingSD3", model=model, shift=8.0)["MODEL"]
    latents = parts.sampled(graph, shifted, prompts, latent, (20, 3.5, "euler"))
    parts.video(graph, latents, vae, 16.0)
    return graph
