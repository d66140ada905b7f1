"""Presets of WAN and Qwen-Image, layer by layer and byte by byte; what all presets refuse."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from types import ModuleType

import pytest
from nvfp4_foundry.quant.errors import RecipeError
from nvfp4_foundry.quant.planning import Inventory, Plan, get_preset, load_presets, make_plan

InventoryNamed = Callable[[str], Inventory]
FP8 = "float8_e4m3fn"
BYTES = {"nvfp4": 0.5625, "nvfp4_w4a16": 0.5625, FP8: 1.0, "bf16": 2.0, "keep": 2.0}

WAN_BLOCKS = {"wan2.2-ti2v-5b": 30, "wan2.2-t2v-14b": 40, "wan2.2-i2v-14b": 40}
WAN_PRESET = {
    "wan2.2-ti2v-5b": "wan2.2-ti2v-5b",
    "wan2.2-t2v-14b": "wan2.2-14b",
    "wan2.2-i2v-14b": "wan2.2-14b",
}
QWEN = ("qwen-image-2512", "qwen-image-edit-2511")

ATTENTIONS = ("self_attn", "cross_attn")
QWEN_IN_BLOCK = (
    "img_mod.1", "txt_mod.1", "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj",
    "txt_mlp.net.2", "attn.to_q", "attn.to_k", "attn.to_v", "attn.add_q_proj", "attn.add_k_proj",
    "attn.add_v_proj", "attn.to_out.0", "attn.to_add_out",
)  # fmt: skip
QWEN_MODULATION = ("img_mod.1", "txt_mod.1")
QWEN_SENSITIVE = ("attn.to_v", "attn.add_v_proj", "img_mlp.net.2", "txt_mlp.net.2")


def wan_names(blocks: range | list[int], parts: str = "qkvo02") -> set[str]:
    """Layer names: q, k, v, o of both attentions, 0 and 2 of the feed-forward."""
    names = {
        f"blocks.{i}.{a}.{p}" for i in blocks for a in ATTENTIONS for p in parts if p in "qkvo"
    }
    return names | {f"blocks.{i}.ffn.{p}" for i in blocks for p in parts if p in "02"}


def qwen_names(blocks: range | list[int], parts: tuple[str, ...] = QWEN_IN_BLOCK) -> set[str]:
    return {f"transformer_blocks.{i}.{part}" for i in blocks for part in parts}


def formats(plan: Plan) -> dict[str, set[str]]:
    """Return the layers that do not keep their format, by format."""
    found: dict[str, set[str]] = {}
    for layer in plan.layers:
        if layer.format != "keep":
            found.setdefault(layer.format, set()).add(layer.name)
    return found


def expected_bytes(shapes: dict[str, tuple[int, ...]], plan_formats: dict[str, set[str]]) -> float:
    per_weight = {
        f"{layer}.weight": BYTES[fmt] for fmt, layers in plan_formats.items() for layer in layers
    }
    return sum(prod(shape) * per_weight.get(name, 2.0) for name, shape in shapes.items())


@pytest.fixture
def plan_for(inventory_named: InventoryNamed) -> Callable[..., Plan]:
    def build(preset: str, model: str, **settings: int | str) -> Plan:
        return make_plan(get_preset(preset).build(settings), inventory_named(model))

    return build


def check(plan: Plan, expected: dict[str, set[str]], manifests: ModuleType, model: str) -> None:
    assert formats(plan) == expected
    assert plan.warnings == ()
    shapes = manifests.MODELS[model]()
    assert plan.bytes_before == 2 * sum(map(prod, shapes.values()))
    assert plan.bytes_after == pytest.approx(expected_bytes(shapes, expected), rel=0.01)


@pytest.mark.parametrize("model", WAN_BLOCKS)
def test_wan_defaults(plan_for: Callable[..., Plan], manifests: ModuleType, model: str) -> None:
    count = WAN_BLOCKS[model]
    inner, edges = range(2, count - 2), [0, 1, count - 2, count - 1]
    expected = {
        "nvfp4": wan_names(inner, "qko0"),
        FP8: wan_names(inner, "v2") | wan_names(edges),
    }
    check(plan_for(WAN_PRESET[model], model), expected, manifests, model)


@pytest.mark.parametrize("model", WAN_BLOCKS)
def test_wan_every_setting(
    plan_for: Callable[..., Plan], manifests: ModuleType, model: str
) -> None:
    count = WAN_BLOCKS[model]
    inner = range(3, count - 3)
    edges = [*range(3), *range(count - 3, count)]
    settings = {
        "edge_blocks": 3, "edge_format": "bf16", "sensitive_format": "nvfp4_w4a16",
        "attention_format": FP8, "ffn_format": "nvfp4",
    }  # fmt: skip
    expected = {
        "bf16": wan_names(edges),
        "nvfp4_w4a16": wan_names(inner, "v2"),
        FP8: wan_names(inner, "qko"),
        "nvfp4": wan_names(inner, "0"),
    }
    check(plan_for(WAN_PRESET[model], model, **settings), expected, manifests, model)


@pytest.mark.parametrize("model", WAN_BLOCKS)
def test_wan_without_edges(
    plan_for: Callable[..., Plan], manifests: ModuleType, model: str
) -> None:
    blocks = range(WAN_BLOCKS[model])
    expected = {"nvfp4": wan_names(blocks, "qko0"), FP8: wan_names(blocks, "v2")}
    check(plan_for(WAN_PRESET[model], model, edge_blocks=0), expected, manifests, model)


def test_edges_that_meet_leave_nothing_and_say_so(plan_for: Callable[..., Plan]) -> None:
    plan = plan_for("wan2.2-ti2v-5b", "wan2.2-ti2v-5b", edge_blocks=15)
    assert formats(plan) == {FP8: wan_names(range(30))}
    assert len(plan.warnings) == 3
    assert all("decides nothing: earlier rules match all" in text for text in plan.warnings)


@pytest.mark.parametrize("model", QWEN)
def test_qwen_defaults(plan_for: Callable[..., Plan], manifests: ModuleType, model: str) -> None:
    inner, edges = range(2, 58), [0, 1, 58, 59]
    fp8 = qwen_names(range(60), QWEN_MODULATION) | qwen_names(edges)
    expected = {FP8: fp8, "nvfp4": qwen_names(inner) - fp8}
    assert len(expected["nvfp4"]) == 56 * 12
    check(plan_for(model, model), expected, manifests, model)


@pytest.mark.parametrize("model", QWEN)
def test_qwen_every_setting(
    plan_for: Callable[..., Plan], manifests: ModuleType, model: str
) -> None:
    inner, edges = range(1, 59), [0, 59]
    settings = {
        "edge_blocks": 1, "edge_format": "nvfp4_w4a16", "modulation_format": "bf16",
        "sensitive_format": FP8,
    }  # fmt: skip
    rest = tuple(p for p in QWEN_IN_BLOCK if p not in QWEN_MODULATION + QWEN_SENSITIVE)
    expected = {
        "bf16": qwen_names(range(60), QWEN_MODULATION),
        "nvfp4_w4a16": qwen_names(edges, rest + QWEN_SENSITIVE),
        FP8: qwen_names(inner, QWEN_SENSITIVE),
        "nvfp4": qwen_names(inner, rest),
    }
    check(plan_for(model, model, **settings), expected, manifests, model)


@pytest.mark.parametrize("fmt", ["nvfp4", "nvfp4_w4a16", FP8])
@pytest.mark.parametrize("model", [*WAN_BLOCKS, *QWEN])
def test_all_takes_every_block_linear_and_nothing_else(
    plan_for: Callable[..., Plan], manifests: ModuleType, model: str, fmt: str
) -> None:
    names = wan_names(range(WAN_BLOCKS[model])) if model in WAN_BLOCKS else qwen_names(range(60))
    check(plan_for("all", model, format=fmt), {fmt: names}, manifests, model)


@pytest.mark.parametrize(
    ("preset", "model", "settings", "gigabytes"),
    [
        ("all", "wan2.2-ti2v-5b", {}, 2.95),
        ("all", "wan2.2-t2v-14b", {}, 8.38),
        ("all", "wan2.2-i2v-14b", {}, 8.38),
        ("all", "qwen-image-2512", {}, 11.56),
        ("all", "qwen-image-edit-2511", {}, 11.56),
        ("qwen-image-2512", "qwen-image-2512", {"edge_blocks": 0}, 14.53),
        ("qwen-image-2512", "qwen-image-2512",
         {"edge_blocks": 0, "modulation_format": "bf16"}, 21.33),
    ],
)  # fmt: skip
def test_known_totals(
    plan_for: Callable[..., Plan],
    preset: str,
    model: str,
    settings: dict[str, int | str],
    gigabytes: float,
) -> None:
    assert plan_for(preset, model, **settings).bytes_after / 1e9 == pytest.approx(
        gigabytes, abs=0.011
    )


WRONG = [
    ("wan2.2-14b", "wan2.2-ti2v-5b", "WAN 2.2 TI2V", ["wan2.2-ti2v-5b"]),
    ("wan2.2-ti2v-5b", "wan2.2-t2v-14b", "WAN T2V", ["wan2.2-14b"]),
    ("wan2.2-ti2v-5b", "wan2.2-i2v-14b", "WAN I2V", ["wan2.2-14b"]),
    ("wan2.2-14b", "qwen-image-2512", "Qwen-Image", ["qwen-image-2512"]),
    ("qwen-image-2512", "qwen-image-edit-2511", "Edit 2511", ["qwen-image-edit-2511"]),
    ("qwen-image-edit-2511", "qwen-image-2512", "Qwen-Image", ["qwen-image-2512"]),
    ("qwen-image-2512", "flux1-dev", "Flux.1", ["flux1"]),
    ("flux1", "flux2-dev", "Flux.2", ["flux2"]),
    ("sd1.5", "sdxl", "SDXL", ["sdxl"]),
    ("qwen2.5-vl", "t5-xxl", "T5-XXL", ["t5-xxl"]),
    ("qwen-image-2512", "unknown-dit", "transformer that ComfyUI 0.33 does not know", []),
]


@pytest.mark.parametrize(("preset", "model", "recognised", "fitting"), WRONG)
def test_wrong_architecture_names_what_fits(
    inventory_named: InventoryNamed,
    preset: str,
    model: str,
    recognised: str,
    fitting: list[str],
) -> None:
    with pytest.raises(RecipeError) as caught:
        make_plan(get_preset(preset).build(), inventory_named(model))
    message = str(caught.value)
    assert message.startswith(f"preset {preset} is for ")
    assert recognised in message
    assert message.endswith("use " + " or ".join([*fitting, "all", "smart"]))


def test_wrong_architecture_can_be_forced(inventory_named: InventoryNamed) -> None:
    recipe = get_preset("wan2.2-14b").build()
    plan = make_plan(recipe, inventory_named("wan2.2-ti2v-5b"), any_architecture=True)
    assert formats(plan)["nvfp4"] == wan_names(range(2, 28), "qko0")


@pytest.mark.parametrize("name", load_presets())
def test_defaults_and_every_choice_are_valid(name: str) -> None:
    preset = load_presets()[name]
    assert preset.build() == preset.build({})
    for setting in preset.settings:
        values = setting.choices or (setting.min, setting.default, setting.max)
        for value in values:
            recipe = preset.build({setting.name: value})
            assert recipe.name == name
            assert "{" not in recipe.to_json().replace("{\n", "")


@pytest.mark.parametrize("value", [-1, 17, "many", "²", "--3", 1.5, True, None, "", "2.0"])
def test_integer_settings_are_checked(value: object) -> None:
    with pytest.raises(RecipeError, match="edge_blocks must be a whole number from 0 to 16"):
        get_preset("smart").build({"edge_blocks": value})


def test_integer_settings_may_be_text() -> None:
    preset = get_preset("smart")
    assert preset.build({"edge_blocks": "3"}) == preset.build({"edge_blocks": 3})
    assert "first:3" in {rule.blocks for rule in preset.build({"edge_blocks": "3"}).rules}


def test_choice_settings_are_checked() -> None:
    with pytest.raises(RecipeError, match=r"preset all: format must be one of nvfp4, .*not 'fp4'"):
        get_preset("all").build({"format": "fp4"})


def test_unknown_setting_and_preset_list_the_known() -> None:
    with pytest.raises(
        RecipeError, match="all has no setting edge_blocks; its settings are format"
    ):
        get_preset("all").build({"edge_blocks": 1})
    with pytest.raises(RecipeError, match=r"unknown preset 'smrat'; the presets are all, .*smart"):
        get_preset("smrat")
