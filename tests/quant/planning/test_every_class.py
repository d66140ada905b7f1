"""Every model class of ComfyUI 0.29 and 0.33: its name, and plans that touch nothing they must not.

The lists come from ComfyUI's own code; ``tests/comfyui/test_key_lists.py`` checks that they are
what ComfyUI builds, and ``test_detected_files.py`` beside it that it recognises quantized files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.planning import (
    Inventory,
    Plan,
    Recipe,
    detect_architecture,
    get_preset,
    known_model,
    make_plan,
)
from nvfp4_foundry.quant.planning.architectures.folding import expand
from nvfp4_foundry.quant.planning.presets import preset_for

from tests.data import manifests
from tests.data.model_configs import DIFFUSION
from tests.data.write_known_models import KNOWN, inventory_named, known_models, text_of

#: Id and title, and the published models that must get them.
EXPECTED = {
    ("ace-step", "ACE-Step"): "ace-step",
    ("ace-step-1.5", "ACE-Step 1.5"): "ace-step-1.5",
    ("anima", "Anima"): "anima",
    ("auraflow", "AuraFlow"): "auraflow",
    ("boogu", "Boogu-Image"): "boogu",
    ("chroma", "Chroma"): "chroma",
    ("chroma-radiance", "Chroma Radiance"): "chroma-radiance",
    ("cogvideox", "CogVideoX"):
        "cogvideox-1.5-5b cogvideox-1.5-5b-i2v cogvideox-1.5-5b-inpaint cogvideox-2b "
        "cogvideox-5b cogvideox-5b-i2v",
    ("cosmos", "Cosmos"): "cosmos-i2v-7b cosmos-t2v-14b cosmos-t2v-7b",
    ("cosmos-predict2", "Cosmos-Predict2"):
        "cosmos-predict2-t2i-14b cosmos-predict2-t2i-2b cosmos-predict2-v2w-2b",
    ("depth-anything3", "Depth Anything 3"): "depth-anything3 depth-anything3-large",
    ("ernie-image", "ERNIE-Image"): "ernie-image",
    ("flux1", "Flux.1"): "flux1-dev flux1-fill flux1-schnell",
    ("flux2", "Flux.2"): "flux2-dev flux2-klein-4b flux2-klein-9b",
    ("hidream-i1", "HiDream-I1"): "hidream-i1",
    ("hidream-o1", "HiDream-O1"): "hidream-o1",
    ("hunyuan-dit", "Hunyuan DiT"): "hunyuan-dit hunyuan-dit-1.0",
    ("hunyuan-image-2.1", "Hunyuan Image 2.1"): "hunyuan-image-2.1 hunyuan-image-2.1-distilled",
    ("hunyuan-image-2.1-refiner", "Hunyuan Image 2.1 refiner"): "hunyuan-image-2.1-refiner",
    ("hunyuan-video", "Hunyuan Video"): "hunyuan-video hunyuan-video-i2v hunyuan-video-skyreels",
    ("hunyuan-video-1.5", "Hunyuan Video 1.5"): "hunyuan-video-1.5 hunyuan-video-1.5-sr",
    ("hunyuan3d-2", "Hunyuan3D 2"): "hunyuan3d-2 hunyuan3d-2-mini",
    ("hunyuan3d-2.1", "Hunyuan3D 2.1"): "hunyuan3d-2.1",
    ("ideogram4", "Ideogram 4"): "ideogram4",
    ("joyimage", "JoyImage"): "joyimage",
    ("kandinsky5", "Kandinsky 5"): "kandinsky5-image kandinsky5-lite kandinsky5-pro",
    ("sdxl", "KOALA 1B"): "koala-1b",
    ("sdxl", "KOALA 700M"): "koala-700m",
    ("krea2", "Krea 2"): "krea2",
    ("lens", "Lens"): "lens",
    ("longcat-image", "LongCat-Image"): "longcat-image",
    ("lotus-d", "Lotus-D"): "lotus-d",
    ("ltx-2", "LTX-2"): "ltx-2 ltx-2.3",
    ("ltxv", "LTX-Video"): "ltxv-13b ltxv-2b",
    ("lumina2", "Lumina 2"): "lumina2",
    ("mage-flow", "Mage-Flow"): "mage-flow",
    ("minimax-h3", "MiniMax-H3"): "minimax-h3 minimax-h3-curve",
    ("minimax-music3", "MiniMax Music 3"): "minimax-music3",
    ("mochi", "Mochi"): "mochi",
    ("newbie", "NewBie"): "newbie",
    ("omnigen2", "OmniGen2"): "omnigen2",
    ("ovis-image", "Ovis-Image"): "ovis-image",
    ("pid", "PiD"): "pid",
    ("pixart", "PixArt-alpha"): "pixart-alpha",
    ("pixart", "PixArt-sigma"): "pixart-sigma",
    ("pixeldit", "PixelDiT"): "pixeldit",
    ("qwen-image", "Qwen-Image"): "qwen-image-2512 qwen-image-layered",
    ("qwen-image-edit-2511", "Qwen-Image-Edit 2511"): "qwen-image-edit-2511",
    ("rt-detr", "RT-DETR"): "rt-detr",
    ("sam3", "SAM 3"): "sam3 sam3.1",
    ("sd-x4-upscaler", "Stable Diffusion x4 upscaler"): "sd-x4-upscaler",
    ("sd1.5", "Stable Diffusion 1.5"): "sd1.5 sd1.5-inpainting sd1.5-pix2pix",
    ("sd2", "Stable Diffusion 2"): "sd2.1 sd2.1-unclip-h sd2.1-unclip-l",
    ("sd3", "Stable Diffusion 3"): "sd3-medium sd3.5-large sd3.5-medium",
    ("sdxl", "SDXL"): "sdxl sdxl-inpainting sdxl-pix2pix",
    ("sdxl-refiner", "SDXL refiner"): "sdxl-refiner",
    ("seedvr2", "SeedVR2"): "seedvr2-3b seedvr2-7b",
    ("sdxl", "Segmind Vega"): "segmind-vega",
    ("sdxl", "SSD-1B"): "ssd-1b",
    ("stable-audio", "Stable Audio"): "stable-audio",
    ("stable-audio-3", "Stable Audio 3"): "stable-audio-3",
    ("stable-cascade", "Stable Cascade, stage B"): "stable-cascade-b",
    ("stable-cascade", "Stable Cascade, stage C"): "stable-cascade-c",
    ("svd", "Stable Video Diffusion"): "sv3d-p sv3d-u svd",
    ("trellis2", "Trellis 2"): "trellis2",
    ("triposplat", "TripoSplat"): "triposplat",
    ("wan-animate2", "WAN Animate 2"): "wan-animate2",
    ("wan-dancer", "WanDancer"): "wan-dancer",
    ("wan-flowrvs", "WAN FlowRVS"): "wan-flowrvs",
    ("wan-humo", "WAN HuMo"): "wan-humo",
    ("wan-scail", "WAN SCAIL"): "wan-scail",
    ("wan-scail", "WAN SCAIL 2"): "wan-scail2",
    ("wan-camera", "WAN camera control"): "wan2.1-camera wan2.2-camera",
    ("wan-causal-ar", "WAN T2V, autoregressive"): "wan2.1-causal-ar",
    ("wan-i2v", "WAN I2V"): "wan2.1-flf2v-14b wan2.1-i2v-14b wan2.2-i2v-14b",
    ("wan-fun-control", "WAN Fun Control"):
        "wan2.1-fun-control wan2.1-fun-control-1.0 wan2.2-fun-control",
    ("wan-t2v", "WAN T2V"): "wan2.1-t2v-1.3b wan2.2-t2v-14b",
    ("wan-vace", "WAN VACE"): "wan2.1-vace-1.3b wan2.1-vace-14b",
    ("wan-animate", "WAN Animate"): "wan2.2-animate",
    ("wan-s2v", "WAN S2V"): "wan2.2-s2v",
    ("wan-ti2v", "WAN 2.2 TI2V"): "wan2.2-ti2v-5b",
    ("z-image", "Z-Image"): "z-image z-image-omni",
    ("z-image-pixel", "Z-Image in pixels"): "z-image-pixel",
    ("zero123", "Stable Zero123"): "zero123",
    ("gemma2", "Gemma 2 2B text encoder"): "gemma2-2b",
    ("gemma3", "Gemma 3 12B text encoder"): "gemma3-12b",
    ("gemma3", "Gemma 3 4B text encoder"): "gemma3-4b gemma3-4b-vision",
    ("gemma4", "Gemma 4 12B text encoder"): "gemma4-12b",
    ("gemma4", "Gemma 4 31B text encoder"): "gemma4-31b",
    ("gemma4", "Gemma 4 E2B text encoder"): "gemma4-e2b",
    ("gemma4", "Gemma 4 E4B text encoder"): "gemma4-e4b",
    ("gpt-oss", "GPT-OSS text encoder"): "gpt-oss-20b",
    ("llama3", "Llama 3 text encoder"): "llama3-8b",
    ("minimax-h3-vae", "the video VAE of MiniMax H3"): "minimax-h3-vae",
    ("minimax-music3-te", "MiniMax Music 3 text encoder"): "minimax-music3-te",
    ("mistral3", "Ministral 3 text encoder"): "ministral3-3b",
    ("mistral3", "Mistral 3 Small text encoder"): "mistral3-24b",
    ("qwen2.5", "Qwen2.5 text encoder"): "qwen2.5-3b",
    ("qwen2.5-vl", "Qwen2.5-VL text encoder"): "qwen2.5-vl-7b",
    ("qwen3", "Qwen3 text encoder"): "qwen3-0.6b qwen3-2b qwen3-4b qwen3-8b",
    ("qwen3-vl", "Qwen3-VL text encoder"): "qwen3-vl-32b qwen3-vl-4b qwen3-vl-8b",
    ("qwen3.5", "Qwen3.5 text encoder"): "qwen3.5-2b qwen3.5-9b",
    ("t5-xxl", "T5-XXL text encoder"): "t5-xxl",
    ("t5-xxl", "T5-XXL text encoder, first version"): "t5-xxl-first",
    ("umt5-xxl", "UMT5-XXL text encoder"): "umt5-xxl",
}  # fmt: skip
MODELS = {model: named for named, models in EXPECTED.items() for model in models.split()}
#: Classes in ``comfy.supported_models.models``.
CLASSES = {"0.29": 97, "0.33": 101}
NEW_IN_033 = {"MiniMaxH3", "MiniMaxMusic3", "Trellis2", "WAN_Animate2"}
EVERYTHING = Recipe.model_validate({"name": "everything", "default": "nvfp4"})
RECIPES: dict[str, Callable[[Inventory], Recipe]] = {
    "auto": lambda inventory: preset_for(detect_architecture(inventory)).build(),
    "smart": lambda _: get_preset("smart").build(),
    "all": lambda _: get_preset("all").build(),
    "everything": lambda _: EVERYTHING,
}

inventory_of_model = lru_cache(maxsize=2)(inventory_named)


def named(record: dict[str, Any], *kinds: str) -> set[str]:
    """Return names that a record keeps folded."""
    return {name for kind in kinds for folded in record.get(kind, ()) for name in expand(folded)}


def quantized(plan: Plan, inventory: Inventory) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and the stored shape of every quantized weight."""
    for planned in plan.quantized():
        tensor = inventory.layers[planned.name].tensor
        specs = get_format(planned.format).tensor_specs(tensor.shape, tensor.dtype)
        yield tensor.name, specs["weight"].shape


def test_all_classes_are_there() -> None:
    classes = {
        record["loaded_as"]: record["since"] for record in map(manifests.load_record, DIFFUSION)
    }
    assert set(MODELS) == set(manifests.GENERATED)
    assert len(classes) == CLASSES["0.33"]
    assert {name for name, since in classes.items() if since != "0.29"} == NEW_IN_033
    assert len(classes) - len(NEW_IN_033) == CLASSES["0.29"]


@pytest.mark.parametrize("model", manifests.GENERATED)
def test_name(model: str) -> None:
    found = detect_architecture(inventory_of_model(model))
    assert ((found.id, found.title), found.problem) == (MODELS[model], None)
    since = manifests.load_record(model).get("since", "0.29")
    assert (found.since or "0.29") == since
    assert ("needs ComfyUI 0.33" in str(found)) == (since == "0.33")


@pytest.mark.parametrize("model", manifests.GENERATED)
def test_kinds(model: str) -> None:
    """Every matrix has the kind of the module that ComfyUI builds for it."""
    record = manifests.load_record(model)
    others = {kind: named(record, kind) for kind in ("embedding", "parameter")}
    rewritten, banks = named(record, "rewritten"), named(record, "bank")
    for layer in inventory_of_model(model).layers.values():
        name = layer.tensor.name
        if name in banks:
            assert layer.kind == "linear"
        elif len(layer.shape) != 2 or not name.endswith(".weight"):
            assert layer.kind not in ("linear", "embedding"), name
            continue
        expected = next((kind for kind, names in others.items() if name in names), "linear")
        assert layer.kind == ("parameter" if name in rewritten else expected), name


@pytest.mark.parametrize("model", manifests.GENERATED)
def test_plans_quantize_only_linear_layers(model: str) -> None:
    """No other matrix, no key that the loader rewrites, no shape that the detection reads."""
    record, inventory = manifests.load_record(model), inventory_of_model(model)
    forbidden = named(record, "embedding", "parameter", "rewritten")
    banks = named(record, "bank")
    columns, rows = set(record.get("columns_read", ())), set(record.get("rows_read", ()))
    for title, recipe in RECIPES.items():
        plan = make_plan(recipe(inventory), inventory, any_architecture=True)
        assert plan.quantized(), title
        for name, stored in quantized(plan, inventory):
            shape = inventory.layers[name.removesuffix(".weight")].shape
            is_matrix = name.endswith(".weight") and len(shape) == 2
            assert is_matrix or name in banks, (title, name)
            assert name not in forbidden, (title, name)
            assert name not in columns or stored == shape, (title, name)
            assert name not in rows or stored[0] == shape[0], (title, name)


@pytest.mark.parametrize("model", manifests.GENERATED)
def test_published_models_are_complete(model: str) -> None:
    shapes = manifests.load_key_list(model)
    known = known_model(MODELS[model][0])
    assert known is None or list(known.missing_from(shapes)) == []


def test_known_models_are_what_the_lists_say() -> None:
    """To write them: ``python -m tests.data.write_known_models``."""
    written = {path.stem: path.read_text(encoding="utf-8") for path in KNOWN.glob("*.json")}
    assert written == {identity: text_of(known) for identity, known in known_models().items()}


def test_lists_are_small() -> None:
    """They are for every reader of the repository to download."""
    for folder, limit in ((manifests.KEY_LISTS, 450_000), (KNOWN, 150_000)):
        assert sum(path.stat().st_size for path in folder.glob("*.json")) < limit


def test_documented_models() -> None:
    """The guide lists every id, title and class, and what needs a newer ComfyUI."""
    page = Path(__file__).parents[3] / "docs" / "guide" / "known-models.md"
    found = {
        row[0].strip("`"): (
            set(row[1].split(", ")),
            set(row[2].replace("`", "").split(", ")),
            row[3],
        )
        for line in page.read_text(encoding="utf-8").splitlines()
        if len(row := [cell.strip() for cell in line.strip("|").split("|")]) == 4 and "`" in line
    }
    expected: dict[str, tuple[set[str], set[str], str]] = {}
    for model, (identity, title) in MODELS.items():
        record = manifests.load_record(model)
        if model in DIFFUSION:
            needs = "" if record["since"] == "0.29" else f"ComfyUI {record['since']}"
            titles, classes, _ = expected.setdefault(identity, (set(), set(), needs))
            titles.update(title.split(", "))
            classes.add(record["loaded_as"])
    assert found == expected


def test_a_header_tells_models_apart() -> None:
    """Three classes of WAN have the names of others; the header's config says what they are."""
    for model in ("wan-animate2", "wan-flowrvs", "wan2.1-causal-ar"):
        transformer = manifests.load_record(model)["transformer"]
        assert inventory_of_model(model).transformer == transformer
