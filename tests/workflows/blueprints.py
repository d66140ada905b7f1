"""The subgraph blueprints: whole jobs as one node to drag in."""

from __future__ import annotations

from tests.workflows import parts
from tests.workflows.graph import Graph, Node
from tests.workflows.subgraph import Blueprint

_SAMPLER = (
    ("steps", "steps"), ("cfg", "cfg"), ("sampler_name", "sampler"), ("scheduler", "scheduler"),
)  # fmt: skip
#: No file name: ComfyUI would look for it and call it missing.
_NO_MODEL = "choose a model"


def quantize_file() -> Blueprint:
    """A model file becomes a checkpoint."""
    graph = Graph("Quantize a model file", "")
    graph.group("Recipe", parts.BLUE)
    recipe = graph.node("SelectPreset", preset="auto")
    graph.group("Convert", parts.PURPLE)
    node = graph.node("QuantizeFile", model_file=_NO_MODEL, recipe=recipe["RECIPE"])
    blueprint = Blueprint(
        graph,
        "Converts a model file to an NVFP4 checkpoint, one layer at a time: choose the model and "
        "run. The preset for the model is chosen automatically.",
        ("nvfp4", "fp4", "fp8", "int8", "compress", "convert", "quantise", "shrink"),
    )
    blueprint.port("calibration", (node, "statistics"))
    blueprint.port("model_file", (node, "model_file"))
    blueprint.port("file_name", (node, "file_name"))
    blueprint.port("folder", (node, "folder"))
    blueprint.port("gpu", (recipe, "gpu"), label="GPU")
    blueprint.port("rounding", (recipe, "rounding"))
    blueprint.port("extra_rules", (recipe, "extra_rules"))
    blueprint.outputs = [("path", node["path"]), ("report", node["report"])]
    return blueprint


def calibrate() -> Blueprint:
    """Sample a deck of prompts, calibrate, quantize, save."""
    graph = Graph("Calibrate and quantize", "")
    graph.group("Plan", parts.BLUE)
    recipe = graph.node("SelectPreset", preset="auto")
    graph.column()
    plan = graph.node("PlanLayers", recipe=recipe["RECIPE"])
    graph.group("Sample a few prompts with the observed model", parts.GREEN)
    deck = graph.node("CalibrationPrompts", deck="built-in: image", limit=4)
    observed = graph.node("Calibrate", prompts=deck["prompts"])
    graph.column()
    positive = graph.node("CLIPTextEncode", "Positive prompts", text=deck["prompts"])
    negative = graph.node("CLIPTextEncode", "Negative prompt", text="")
    sampler = _sampler(graph, observed, positive, negative)
    graph.column()
    result = graph.node(
        "CalibrationResult", calibration=observed["SESSION"], latent=sampler["LATENT"]
    )
    graph.group("Quantize and save", parts.PURPLE)
    quantized, saved = _saved(graph, plan, result)
    blueprint = Blueprint(
        graph,
        "Samples a few prompts with your model, quantizes it with the calibration that they give, "
        "and saves the checkpoint. Connect the model as you sample it.",
        ("nvfp4", "calibrate", "calibration", "fp4", "fp8", "compress", "quantise"),
    )
    models = [(node, "model") for node in (plan, observed, quantized)]
    blueprint.port("model", *models)
    blueprint.port("clip", (positive, "clip"), (negative, "clip"))
    blueprint.port("latent", (sampler, "latent_image"))
    blueprint.port("name", (observed, "name"))
    blueprint.port("prompts", (deck, "limit"), label="prompts to sample")
    blueprint.port("negative", (negative, "text"), label="negative prompt")
    _sampler_ports(blueprint, sampler)
    blueprint.port("file_name", (saved, "file_name"))
    blueprint.port("folder", (saved, "folder"))
    blueprint.choices = [(deck, "deck")]
    blueprint.outputs = [
        ("MODEL", quantized["MODEL"]),
        ("CALIBRATION", result["CALIBRATION"]),
        ("path", saved["path"]),
        ("report", quantized["report"]),
    ]
    return blueprint


def measure() -> Blueprint:
    """Measure and probe a calibrated model, mix formats, quantize, save."""
    graph = Graph("Measure and mix", "")
    graph.group("Plan and measure", parts.BLUE)
    recipe = graph.node("SelectPreset", preset="auto")
    graph.column()
    plan = graph.node("PlanLayers", recipe=recipe["RECIPE"])
    graph.column()
    measured = graph.node("MeasureSensitivity")
    graph.group("Probe", parts.ORANGE)
    probe = graph.node("ProbeLatentShift", sensitivity=measured["SENSITIVITY"], plan=plan["PLAN"])
    positive = graph.node("CLIPTextEncode", "Prompt to probe with", text="a portrait at a window")
    negative = graph.node("CLIPTextEncode", "Negative prompt", text="")
    graph.column()
    sampler = _sampler(graph, probe, positive, negative)
    graph.column()
    result = graph.node("ProbeResult", probe=probe["PROBE"], latent=sampler["LATENT"])
    graph.group("Mix, quantize and save", parts.PURPLE)
    given = {"plan": plan["PLAN"], "sensitivity": result["SENSITIVITY"]}
    mix = graph.node("AutoMix", **given)
    graph.column()
    quantized, saved = _saved(graph, mix, None)
    blueprint = Blueprint(
        graph,
        "Measures what each layer of a calibrated model loses in each format, probes the sampled "
        "latent, mixes formats within a budget, and saves the checkpoint. The probe is slow: "
        "connect a small latent.",
        ("nvfp4", "mixed precision", "auto mix", "sensitivity", "compress to size"),
    )
    models = [(node, "model") for node in (plan, measured, probe, mix, quantized)]
    blueprint.port("model", *models)
    blueprint.port("calibration", *((n, "statistics") for n in (measured, probe, quantized)))
    blueprint.port("clip", (positive, "clip"), (negative, "clip"))
    blueprint.port("latent", (sampler, "latent_image"), label="small latent")
    blueprint.port("prompt", (positive, "text"))
    blueprint.port("negative", (negative, "text"), label="negative prompt")
    _sampler_ports(blueprint, sampler)
    blueprint.port("save_as", (result, "save_as"), (mix, "save_as"))
    blueprint.port("file_name", (saved, "file_name"))
    blueprint.port("folder", (saved, "folder"))
    blueprint.choices = [(mix, "budget")]
    blueprint.outputs = [
        ("MODEL", quantized["MODEL"]),
        ("RECIPE", mix["RECIPE"]),
        ("SENSITIVITY", result["SENSITIVITY"]),
        ("path", saved["path"]),
        ("report", mix["report"]),
    ]
    return blueprint


def _sampler(graph: Graph, model: Node, positive: Node, negative: Node) -> Node:
    return graph.node(
        "KSampler",
        model=model["MODEL"],
        positive=positive["CONDITIONING"],
        negative=negative["CONDITIONING"],
        seed=1,
        steps=20,
        cfg=4.0,
        sampler_name="euler",
        scheduler="simple",
    )


def _sampler_ports(blueprint: Blueprint, sampler: Node) -> None:
    for name, label in _SAMPLER:
        blueprint.port(name, (sampler, name), label=label)


def _saved(graph: Graph, plan: Node, result: Node | None) -> tuple[Node, Node]:
    given = {"statistics": result["CALIBRATION"]} if result is not None else {}
    quantized = graph.node(
        "QuantizeModel", plan=plan["PLAN"], preview="as this machine runs it", **given
    )
    graph.column()
    return quantized, graph.node("SaveCheckpoint", checkpoint=quantized["CHECKPOINT"])
