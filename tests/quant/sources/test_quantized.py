"""Quantized files of every convention: decoded with their own scales, or taken over as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import CheckpointError, SourceError
from nvfp4_foundry.quant.sources import open_source, open_tensors
from nvfp4_foundry.quant.sources.quantized import CONVENTIONS
from nvfp4_foundry.quant.sources.quantized.comfyui import ComfyUI
from safetensors.torch import load_file, save_file

from tests.helpers import quantized_files as qf
from tests.helpers.conversions import Toy, assert_same, plan_of

# Error of each format on Gaussian weights with the max rule, with room for small matrices.
EXPECTED_ERROR = {
    "mxfp8": 0.04, "fp8": 0.035, "float8": 0.035, "nvfp4": 0.12, "int8": 0.012, "e5m2": 0.07
}  # fmt: skip
NVFP4 = ("ComfyUI nvfp4", "ModelOpt", "compressed-tensors", "LightX2V", "LightX2V, older")
ALL = "blocks.* = {}"


def bound(kind: str) -> float:
    """Return the largest relative error of a kind of file."""
    if kind in NVFP4:
        return EXPECTED_ERROR["nvfp4"]
    return next(b for sign, b in reversed(EXPECTED_ERROR.items()) if sign in kind.lower())


@pytest.fixture
def made(tmp_path: Path, toy_wan: Toy) -> Callable[[str], tuple[dict[str, torch.Tensor], Path]]:
    """Return a function from a kind of file to the unquantized model and such a file."""

    def build(kind: str, prefix: str = "") -> tuple[dict[str, torch.Tensor], Path]:
        model = toy_wan(blocks=2)
        path = tmp_path / f"{kind.replace(' ', '_')}.safetensors"
        tensors = {prefix + name: tensor for name, tensor in qf.MAKERS[kind](model).items()}
        save_file({n: t.contiguous() for n, t in tensors.items()}, path)
        return model, path

    return build


@pytest.mark.parametrize("kind", qf.MAKERS)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_is_seen_as_the_model_it_stands_for(made: Callable, kind: str, prefix: str) -> None:
    model, path = made(kind, prefix)
    with open_source(path) as source:
        assert set(source.tensors) == set(model)
        for name, wanted in model.items():
            info, got = source.info(name), source.load(name)
            assert info.shape == tuple(wanted.shape) == tuple(got.shape), name
            error = (got.float() - wanted.float()).norm() / wanted.float().norm().clamp(min=1e-9)
            quantized = source.stored_weight(name) is not None or info.dtype.itemsize == 1
            assert error <= bound(kind) if quantized else torch.equal(got, wanted), name
            assert not quantized or name.endswith("modulation") or error > 0.001, name
        assert source.nbytes <= path.stat().st_size
        assert any("quantized already" in note or "8-bit floats" in note for note in source.notes)
        unscaled = any("without scales" in note for note in source.notes)
        assert unscaled == (kind == "plain fp8"), source.notes


@pytest.mark.parametrize("kind", ["ModelOpt", "compressed-tensors", "LightX2V", "LightX2V, older"])
def test_every_nvfp4_convention_decodes_to_the_same(made: Callable, kind: str) -> None:
    _, reference = made("ComfyUI nvfp4")
    _, path = made(kind)
    with open_source(reference) as wanted, open_source(path) as source:
        for name in wanted.tensors:
            a, b = wanted.load(name).float(), source.load(name).float()
            assert torch.allclose(a, b, rtol=2e-7, atol=0), name  # 1 / (1 / scale) rounds twice


@pytest.mark.parametrize("kind", NVFP4)
def test_nvfp4_is_taken_over_bit_for_bit(made: Callable, tmp_path: Path, kind: str) -> None:
    """Only the tensor scale may have been rounded, by a convention that stores its inverse."""
    _, reference = made("ComfyUI nvfp4")
    _, path = made(kind)
    target = tmp_path / "out.safetensors"
    with open_source(path) as source:
        report = convert(source, plan_of(source, ALL.format("nvfp4")), target)
    wanted, got = load_file(reference), load_file(target)
    for name in wanted:
        if name.endswith(("weight_scale_2", "input_scale")):
            assert torch.allclose(wanted[name], got[name], rtol=3e-7, atol=0), name
        elif not name.endswith("comfy_quant"):
            assert torch.equal(wanted[name].view(torch.uint8), got[name].view(torch.uint8)), name
    taken = [la for la in report.layers if la.format == "nvfp4"]
    assert taken and all(la.rounding == "source" and la.weight_error == 0 for la in taken)


@pytest.mark.parametrize(
    "kind",
    ["scaled fp8", "scaled fp8 in 16 bits", "ComfyUI float8", "ComfyUI nvfp4", "ComfyUI mxfp8",
     "ComfyUI int8", "int8 by rows"],
)  # fmt: skip
def test_keep_keeps_what_comfyui_loads_quantized(made: Callable, tmp_path: Path, kind: str) -> None:
    _, path = made(kind)
    target = tmp_path / "out.safetensors"
    with open_source(path) as source:
        convert(source, plan_of(source, "blocks.0.ffn.0 = nvfp4_w4a16\n* = keep"), target)
    before, after = load_file(path), load_file(target)
    name = "blocks.1.ffn.0"
    assert torch.equal(before[f"{name}.weight"].view(torch.uint8),
                       after[f"{name}.weight"].view(torch.uint8))  # fmt: skip
    marker = bytes(after[f"{name}.comfy_quant"].tolist())
    assert (b"full_precision_matrix_mult" in marker) == ("16 bits" in kind)
    with open_source(path) as a, open_source(target) as b:
        for wanted in a.tensors:
            if wanted != "blocks.0.ffn.0.weight":
                assert torch.equal(a.load(wanted), b.load(wanted)), wanted


@pytest.mark.parametrize("kind", ["ModelOpt", "LightX2V", "scaled fp8", "compressed-tensors"])
def test_the_files_own_input_scales_serve(made: Callable, tmp_path: Path, kind: str) -> None:
    _, path = made(kind)
    for number, (policy, expected) in enumerate(
        {"amax": qf.INPUT_AMAX / 2688, "dynamic": None}.items()
    ):
        target = tmp_path / f"{number}.safetensors"
        with open_source(path) as source:
            plan = plan_of(source, ALL.format("nvfp4"), input_scale=policy)
            report = convert(source, plan, target)
        scale = load_file(target).get("blocks.0.ffn.0.input_scale")
        if expected is None:
            assert scale is None
        else:
            assert scale is not None and float(scale) == pytest.approx(expected, rel=1e-6)
            (layer,) = [la for la in report.layers if la.name == "blocks.0.ffn.0"]
            assert "the source's own" in layer.input_scale_reason


def test_a_scale_of_one_is_no_input_scale(made: Callable) -> None:
    _, path = made("scaled fp8 in 16 bits")
    with open_source(path) as source:
        stored = source.stored_weight("blocks.0.ffn.0.weight")
        assert stored is not None and stored.input_amax() is None


def test_plain_float8_keeps_its_bits(made: Callable, tmp_path: Path) -> None:
    _, path = made("plain fp8")
    target = tmp_path / "out.safetensors"
    with open_source(path) as source:
        convert(source, plan_of(source, "blocks.0.ffn.0 = nvfp4"), target)
    before, after = load_file(path), load_file(target)
    assert after["blocks.1.ffn.0.weight"].dtype == torch.float8_e4m3fn
    kept = {n: t for n, t in before.items() if not n.startswith("blocks.0.ffn.0.weight")}
    assert_same(kept, {n: after[n] for n in kept})


# Searched scales may change with the weight, not only codes.
@pytest.mark.parametrize(("rounding", "room"), [("max", 1.0), ("mse", 1.5)])
def test_fp8_error_explains_the_difference(
    toy_wan: Toy, tmp_path: Path, rounding: str, room: float
) -> None:
    """NVFP4 from scaled fp8 and from bf16 differ by no more than the fp8 error explains.

    A value moved by d crosses to the next code of a grid with steps q with probability |d| / q,
    and then moves by q: the mean square of the difference is E|d| q. Rounding itself leaves
    n^2 = q^2 / 12, and E|d| is at most the fp8 error e (root mean square): the bound is
    sqrt(12) e n. And as both errors are independent, their squares add up in the result.
    """
    model = toy_wan(blocks=2)
    made = {}
    for kind, tensors in {"bf16": model, "fp8": qf.scaled_fp8(model)}.items():
        path, target = tmp_path / f"{kind}.safetensors", tmp_path / f"{kind}_nvfp4.safetensors"
        save_file({n: t.contiguous() for n, t in tensors.items()}, path)
        with open_source(path) as source:
            convert(source, plan_of(source, ALL.format("nvfp4"), rounding=rounding), target)
            floats = {n: source.load(n).double() for n in source.tensors}
        with open_source(target) as result:
            made[kind] = floats, {n: result.load(n).double() for n in result.tensors}
    (exact, from_exact), (fp8, from_fp8) = made["bf16"], made["fp8"]
    for name in (name for name in exact if qf.is_linear_in_block(name, exact[name])):
        norm = exact[name].norm()
        fp8_error = float((fp8[name] - exact[name]).norm() / norm)
        own = float((from_exact[name] - exact[name]).norm() / norm)
        difference = float((from_fp8[name] - from_exact[name]).norm() / norm)
        in_all = float((from_fp8[name] - exact[name]).norm() / norm)
        assert 0.01 < fp8_error < 0.035
        assert 0 < difference**2 <= room * 12**0.5 * fp8_error * own, name
        assert in_all**2 <= 1.05 * (own**2 + fp8_error**2), name


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"l.comfy_quant": torch.full((4,), 65, dtype=torch.uint8)}, "is not JSON"),
        ({"l.weight_scale": torch.ones(())}, "does not belong to any known quantized weight"),
        ({"l.input_scale": torch.ones(())}, "does not belong to any known quantized weight"),
        ({"m.weight": torch.zeros(4, 4, dtype=torch.int8)}, "has no known marker or scales"),
        ({"m.weight": torch.zeros(4, 4, dtype=torch.uint8)}, "has no known marker or scales"),
        ({"m.weight.quant_state.bitsandbytes__nf4": torch.zeros(4).byte()}, "bitsandbytes NF4"),
        ({"m.qweight": torch.zeros(4, 4, dtype=torch.int32), "m.wscales": torch.ones(4)},
         "Nunchaku"),
        ({"m.weight": torch.zeros(4, 4).char(), "m.weight_scale": torch.ones(()),
          "m.weight_zero_point": torch.ones(()).char()}, "asymmetric"),
        ({"m.weight": torch.zeros(4, 4).char(), "m.weight_scale": torch.ones(()),
          "m.pre_quant_scale": torch.ones(3)}, "has the shape .* 4 columns"),
        ({"m.weight": torch.zeros(4, 4).char(), "m.weight_scale": torch.ones(()),
          "m.smooth_scale": torch.ones(4)}, "looks like a scale of m.weight"),
        ({"m.proj": torch.zeros(2, 4, 4).to(torch.float8_e4m3fn), "m.proj_scale": torch.ones(2)},
         "looks like a scale of m.proj"),
        ({"m.weight._data": torch.zeros(4, 4).char(), "m.weight._scale": torch.ones(4, 1)},
         "optimum-quanto"),
        ({"m.weight": torch.zeros(2, 4, 8, dtype=torch.uint8), "m.weight_scale_2": torch.ones(2),
          "m.weight_scale": torch.zeros(2, 4, 1).to(torch.float8_e4m3fn)}, "bank of experts"),
        ({"m.weight": torch.zeros(4, 16, dtype=torch.uint8), "m.weight_scale_2": torch.ones(()),
          "m.weight_scale": torch.zeros(4, 3).to(torch.float8_e4m3fn)},
         "needs one-byte block scales .*follows an unknown convention"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_what_is_not_understood_is_named(
    tmp_path: Path, extra: dict[str, torch.Tensor], message: str, prefix: str
) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"l.weight": torch.zeros(4, 4).bfloat16(), **extra}
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, path)
    with pytest.raises((SourceError, CheckpointError), match=message):
        open_source(path)
    with open_tensors(path) as source:  # as it is, it can be read
        assert set(source.tensors) == {prefix + name for name in tensors}


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
@pytest.mark.parametrize("kind", ["scaled fp8", "ComfyUI float8", "float8"])
def test_one_scale_may_have_any_shape(
    tmp_path: Path, toy_wan: Toy, kind: str, shape: tuple[int, ...]
) -> None:
    tensors = qf.MAKERS.get(kind, qf.comfyui_float8)(toy_wan(blocks=1))
    for name in tensors:
        if name.endswith(("weight_scale", "scale_weight")):
            tensors[name] = tensors[name].reshape(shape)
    if kind == "float8":  # ModelOpt's, without markers
        tensors = {n: t for n, t in tensors.items() if not n.endswith("comfy_quant")}
    path, target = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    with open_source(path) as source:
        report = convert(source, plan_of(source, ALL.format("float8_e4m3fn")), target)
    taken = [la.rounding for la in report.layers if la.format == "float8_e4m3fn"]
    assert set(taken) == {"source"}
    assert load_file(target)["blocks.0.ffn.0.weight_scale"].shape == ()


@pytest.mark.parametrize("marked", [True, False])
def test_nobody_measured_an_input_scale_of_one(tmp_path: Path, toy_wan: Toy, marked: bool) -> None:
    tensors = qf.comfyui_float8(toy_wan(blocks=1))
    tensors["blocks.0.ffn.0.input_scale"] = torch.tensor(1.0)
    tensors["blocks.0.ffn.2.input_scale"] = torch.tensor(0.5)
    if not marked:
        tensors = {n: t for n, t in tensors.items() if not n.endswith("comfy_quant")}
    path = tmp_path / "model.safetensors"
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    with open_source(path) as source:
        first, second = (source.stored_weight(f"blocks.0.ffn.{n}.weight") for n in (0, 2))
        assert first is not None and first.input_amax() is None
        assert second is not None and second.input_amax() == 224.0


def test_comfyui_reads_scaled_fp8_by_its_marker_alone(tmp_path: Path, toy_wan: Toy) -> None:
    """ComfyUI ignores scales in a file without a marker, and reads e5m2 codes as e4m3."""
    path = tmp_path / "model.safetensors"
    for dtype, marked, reads in (
        ("float8_e4m3fn", True, True),
        ("float8_e4m3fn", False, False),
        ("float8_e5m2", True, False),
    ):
        tensors = qf.scaled_fp8(toy_wan(blocks=1), dtype=dtype)
        if not marked:
            del tensors["scaled_fp8"]
        save_file({n: t.contiguous() for n, t in tensors.items()}, path)
        with open_source(path) as source:
            assert source.comfyui_reads is reads


def test_every_convention_says_whose_it_is_and_where_its_layout_is_published() -> None:
    for convention in (*CONVENTIONS, ComfyUI()):
        assert convention.label
        repository, _, place = convention.reference.partition(": ")
        assert repository.count("/") == 1 and place, convention.label
    assert len({convention.label for convention in CONVENTIONS}) == len(CONVENTIONS)
