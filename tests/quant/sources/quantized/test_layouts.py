"""NVFP4 without markers: the layout of the whole file is shown, or asked for, never guessed."""

from __future__ import annotations

import json
from pathlib import Path

import comfy_kitchen as ck
import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.cli.options import LAYOUTS as OPTIONS
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import StateDictSource, open_source, open_to_look
from nvfp4_foundry.quant.sources.quantized import LAYOUTS
from nvfp4_foundry.quant.sources.quantized.layout_statistics import (
    MARGIN,
    layout_statistics,
    likelihood_gain,
)
from safetensors.torch import load_file, save_file

from tests.helpers.conversions import Toy
from tests.helpers.odd_files import BOUNDS, nvfp4_file
from tests.helpers.quantized_files import Tensors, is_linear_in_block

from .conftest import Judge

BOUND = BOUNDS[torch.uint8]
LAYOUT = {True: "comfyui", False: "modelopt"}


def flat(model: Tensors) -> Tensors:
    """Return a model of aligned sizes whose weights show nothing, as after an initialisation."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(tensor.shape, generator=generator).mul_(0.02).to(tensor.dtype)
        if is_linear_in_block(name, tensor)
        else tensor
        for name, tensor in model.items()
    }


def test_the_command_line_offers_the_same_layouts() -> None:
    assert set(OPTIONS) == set(LAYOUTS)


@pytest.mark.parametrize("comfyui", [True, False])
def test_the_scales_of_trained_weights_show_the_layout(
    judge: Judge, model: Tensors, comfyui: bool
) -> None:
    """All sizes are aligned, so shapes show nothing. Read the other way, the error is 1.4."""
    error, _ = judge(nvfp4_file(model, comfyui=comfyui))
    assert error < BOUND


@pytest.mark.parametrize("comfyui", [True, False])
def test_a_sign_against_what_the_scales_show_is_refused(
    judge: Judge, model: Tensors, comfyui: bool
) -> None:
    tensors = nvfp4_file(model, comfyui=comfyui)
    sign = "q.weight_quantizer._scale" if comfyui else "comfy_attention.config"
    tensors[f"blocks.0.self_attn.{sign}"] = torch.zeros(4, dtype=torch.uint8)
    with pytest.raises(SourceError, match=r"contradictory: .* block scales vary from row to row"):
        judge(tensors)


@pytest.mark.parametrize("comfyui", [True, False])
def test_alike_weights_need_the_users_word(judge: Judge, model: Tensors, comfyui: bool) -> None:
    alike = flat(model)
    tensors = nvfp4_file(alike, comfyui=comfyui)
    with pytest.raises(SourceError, match=r"model\.safetensors: .*--layout comfyui.*--layout mod"):
        judge(tensors)
    model.update(alike)
    error, _ = judge(tensors, layout=LAYOUT[comfyui])
    assert error < BOUND
    wrong, _ = judge(tensors, layout=LAYOUT[not comfyui])
    assert wrong > 1  # the user's word is taken where both are possible


@pytest.mark.parametrize("comfyui", [True, False])
def test_one_unaligned_layer_decides_for_the_file(
    judge: Judge, model: Tensors, comfyui: bool
) -> None:
    model.update(flat(model))
    name = "blocks.1.ffn.0"
    model[f"{name}.weight"] = model[f"{name}.weight"][:96]
    model[f"{name}.bias"] = model[f"{name}.bias"][:96]
    tensors = nvfp4_file(model, comfyui=comfyui)
    error, _ = judge(tensors)
    assert error < BOUND
    with pytest.raises(
        SourceError, match=rf"--layout {LAYOUT[not comfyui]}.*cannot be right.*{name}"
    ):
        judge(tensors, layout=LAYOUT[not comfyui])


def test_padded_rows_are_only_comfyuis(judge: Judge, model: Tensors) -> None:
    """120 rows are stored as 128, as the bias shows."""
    model.update(flat(model))
    name = "blocks.1.ffn.0"
    model[f"{name}.weight"] = model[f"{name}.weight"][:120]
    model[f"{name}.bias"] = model[f"{name}.bias"][:120]
    padded = {
        **model,
        f"{name}.weight": torch.nn.functional.pad(model[f"{name}.weight"], (0, 0, 0, 8)),
    }
    error, _ = judge(nvfp4_file(padded, comfyui=True))
    assert error < BOUND


def test_layers_that_contradict_each_other_are_refused(judge: Judge, model: Tensors) -> None:
    small = {n: t[:96] if "ffn.0" in n else t for n, t in model.items()}
    mixed = nvfp4_file(small, comfyui=True)
    mixed |= {
        n: t for n, t in nvfp4_file(small, comfyui=False).items() if n.startswith("blocks.1.")
    }
    with pytest.raises(SourceError, match=r"contradictory: the shapes of .* but the shapes of"):
        judge(mixed)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("hf_quant_config.json", {"producer": {"name": "modelopt"}, "quantization": {}}),
        ("config.json", {"quantization_config": {"quant_method": "modelopt_fp4"}}),
    ],
)
def test_a_configuration_beside_the_file_says_it(
    tmp_path: Path, judge: Judge, model: Tensors, name: str, config: dict[str, object]
) -> None:
    model.update(flat(model))
    (tmp_path / name).write_text(json.dumps(config))
    error, _ = judge(nvfp4_file(model, comfyui=False))
    assert error < BOUND


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"quantization_config": 3}', "[]", '{"producer": 1}']
)
def test_a_strange_configuration_says_nothing(
    tmp_path: Path, judge: Judge, model: Tensors, text: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SourceError, match="--layout"):
        judge(nvfp4_file(flat(model), comfyui=False))


def test_metadata_of_the_header_says_it(tmp_path: Path, model: Tensors) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {n: t.contiguous() for n, t in nvfp4_file(flat(model), comfyui=False).items()}
    save_file(tensors, path, {"quantization_config": '{"quant_method": "modelopt"}'})
    with open_source(path) as source:
        stored = source.stored_weight("blocks.0.ffn.0.weight")
        assert stored is not None and stored.label == "nvfp4 (ModelOpt)"


def test_an_undecided_file_can_be_inspected(tmp_path: Path, model: Tensors) -> None:
    path = tmp_path / "model.safetensors"
    tensors = nvfp4_file(flat(model), comfyui=True)
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    with open_to_look(path) as source:
        label = source.info("blocks.0.ffn.0.weight").stored
        assert label is not None and "not readable" in label.label
        with pytest.raises(SourceError, match="--layout"):
            source.load("blocks.0.ffn.0.weight")


def scales_of(weights: list[torch.Tensor], *, tiled: bool) -> StateDictSource:
    made = {}
    for number, weight in enumerate(weights):
        scale = weight.abs().max() / 2688
        packed, scales = ck.quantize_nvfp4(weight, scale, pad_16x=True)
        rows, blocks = weight.shape[0], weight.shape[1] // 16
        if not tiled:
            scales = ck.from_blocked(scales.view(torch.uint8), rows, blocks).contiguous()
        made[f"{number}.weight"] = packed
        made[f"{number}.weight_scale"] = scales.view(torch.float8_e4m3fn)
    return StateDictSource(made)


@pytest.mark.parametrize("tiled", [True, False])
def test_how_often_the_scales_are_right(tiled: bool) -> None:
    """On the demo model, which is trained: in every layer, and by far in all of them together."""
    weights = [
        tensor.float()
        for name, tensor in load_file(MODEL_PATH).items()
        if name.endswith(".weight") and tensor.dim() == 2
        and tensor.shape[0] % 128 == 0 and tensor.shape[1] % 64 == 0
    ]  # fmt: skip
    source = scales_of(weights, tiled=tiled)
    layers = [str(number) for number in range(len(weights))]
    statistics = layout_statistics(source, layers)
    gains = [likelihood_gain(source.load(f"{layer}.weight_scale")) for layer in layers]
    assert len(gains) >= 40
    assert all(gain < 0 if tiled else gain > 0 for gain in gains)
    assert abs(statistics.score) > 10 * MARGIN
    assert statistics.layout == LAYOUT[tiled]


@pytest.mark.parametrize("shape", [(128, 64), (256, 256), (512, 1024)])
@pytest.mark.parametrize("tiled", [True, False])
def test_random_weights_stay_far_below_the_margin(shape: tuple[int, int], tiled: bool) -> None:
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        weights = [torch.randn(shape, generator=generator) for _ in range(20)]
        statistics = layout_statistics(scales_of(weights, tiled=tiled), [str(n) for n in range(20)])
        assert abs(statistics.score) < MARGIN / 2
        assert statistics.layout is None


def test_equal_scales_show_nothing() -> None:
    same = {"l.weight_scale": torch.ones(128, 8).to(torch.float8_e4m3fn)}
    statistics = layout_statistics(StateDictSource(same), ["l"])
    assert statistics.score == 0 and statistics.layout is None


def test_modelopt_files_of_the_toy_need_no_option(tmp_path: Path, toy_wan: Toy) -> None:
    """Its width is 64: unaligned, so ComfyUI would have padded the scales."""
    tensors = nvfp4_file(toy_wan(blocks=1), comfyui=False)
    save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / "m.safetensors")
    with open_source(tmp_path / "m.safetensors") as source:
        stored = source.stored_weight("blocks.0.ffn.0.weight")
        assert stored is not None and stored.label == "nvfp4 (ModelOpt)"
