"""``smart`` on models of every family and on unknown models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nvfp4_foundry.quant.errors import PlanError
from nvfp4_foundry.quant.planning import (
    Inventory,
    Plan,
    get_preset,
    make_plan,
    parse_rule_lines,
)
from nvfp4_foundry.quant.reports.plan import describe_plan

InventoryNamed = Callable[[str], Inventory]


@pytest.fixture
def smart(inventory_named: InventoryNamed) -> Callable[..., Plan]:
    def build(model: str, **settings: int | str) -> Plan:
        return make_plan(get_preset("smart").build(settings), inventory_named(model))

    return build


def formats(plan: Plan) -> dict[str, set[str]]:
    """Return the layers that do not keep their format, by format."""
    found: dict[str, set[str]] = {}
    for layer in plan.layers:
        if layer.format != "keep":
            found.setdefault(layer.format, set()).add(layer.name)
    return found


def in_blocks(container: str, blocks: list[int], parts: list[str]) -> set[str]:
    return {f"{container}.{i}.{part}" for i in blocks for part in parts}


DOUBLE = [f"{side}_{part}" for side in ("img", "txt") for part in
          ("attn.qkv", "attn.proj", "mlp.0", "mlp.2")]  # fmt: skip
SINGLE = ["linear1", "linear2"]
LUMINA = ["attention.qkv", "attention.out", *(f"feed_forward.w{i}" for i in (1, 2, 3))]
TO = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ["ff.net.0.proj", "ff.net.2"]
CROSS = [f"attn{i}.{part}" for i in (1, 2) for part in TO] + FEED_FORWARD
AUDIO = [f"audio_{part}" for part in CROSS]
AUDIO += [f"{way}.{part}" for way in ("audio_to_video_attn", "video_to_audio_attn") for part in TO]
T5 = [f"layer.0.SelfAttention.{p}" for p in "qkvo"]
T5 += [f"layer.1.DenseReluDense.{p}" for p in ("wi_0", "wi_1", "wo")]
LLAMA = [f"self_attn.{p}_proj" for p in "qkvo"]
LLAMA += [f"mlp.{p}_proj" for p in ("gate", "up", "down")]
QWEN = [f"{side}_mlp.{p}" for side in ("img", "txt") for p in ("net.0.proj", "net.2")]
QWEN += [f"attn.{p}" for p in (*TO, "to_add_out", "add_q_proj", "add_k_proj", "add_v_proj")]
WAN = [f"{a}.{p}" for a in ("self_attn", "cross_attn") for p in "qkvo"] + ["ffn.0", "ffn.2"]
SEEDVR2 = [f"attn.{p}.{side}" for p in ("proj_qkv", "proj_out") for side in ("vid", "txt")]
SEEDVR2 += [f"mlp.{side}.{p}" for p in ("proj_in", "proj_out") for side in ("vid", "txt")]
UNKNOWN = [*(f"mixer.{p}" for p in ("query", "key", "value", "merge")), "mlp.up", "mlp.down"]

#: Per model: lists of blocks, how many blocks, the Linears of a block to quantize.
SMART: dict[str, list[tuple[str, int, list[str]]]] = {
    "wan2.2-ti2v-5b": [("blocks", 30, WAN)],
    "wan2.2-t2v-14b": [("blocks", 40, WAN)],
    "qwen-image-2512": [("transformer_blocks", 60, QWEN)],
    "qwen-image-edit-2511": [("transformer_blocks", 60, QWEN)],
    "flux1-dev": [("double_blocks", 19, DOUBLE), ("single_blocks", 38, SINGLE)],
    "flux2-dev": [("double_blocks", 8, DOUBLE), ("single_blocks", 48, SINGLE)],
    "hunyuan-video": [("double_blocks", 20, DOUBLE), ("single_blocks", 40, SINGLE)],
    "hunyuan-video-1.5": [("double_blocks", 54, DOUBLE)],
    "chroma-radiance": [("double_blocks", 19, DOUBLE), ("single_blocks", 38, SINGLE)],
    "z-image": [("layers", 30, LUMINA)],
    "ltxv-2b": [("transformer_blocks", 28, CROSS)],
    "ltx-2": [("transformer_blocks", 48, CROSS + AUDIO)],
    "gated-ltx": [("transformer_blocks", 4, CROSS)],
    "seedvr2-7b": [("blocks", 36, SEEDVR2)],
    "t5-xxl": [("encoder.block", 24, T5)],
    "qwen2.5-vl-7b": [("model.layers", 28, LLAMA)],
    "unknown-dit": [("stages", 5, UNKNOWN)],
}
SDXL = {
    **{f"input_blocks.{i}.1": 2 if i < 7 else 10 for i in (4, 5, 7, 8)},
    "middle_block.1": 10,
    **{f"output_blocks.{i}.1": 10 if i < 3 else 2 for i in range(6)},
}
SMART["sdxl"] = [(f"{place}.transformer_blocks", n, CROSS) for place, n in SDXL.items()]
#: Their shape tells ComfyUI what the model is; see `Architecture.shapes_read`.
READ = {"transformer_blocks.0.attn2.to_k", "input_blocks.4.1.transformer_blocks.0.attn2.to_k"}


@pytest.mark.parametrize("model", SMART)
def test_edges_and_the_rest(smart: Callable[..., Plan], model: str) -> None:
    plan = smart(model, edge_format="bf16")
    edges, inner = set(), set()
    for container, count, parts in SMART[model]:
        edges |= in_blocks(container, [0, count - 1], parts)
        inner |= in_blocks(container, list(range(1, count - 1)), parts)
    assert formats(plan) == {"nvfp4": inner, "bf16": edges}
    assert plan.warnings == ()


@pytest.mark.parametrize("model", SMART)
def test_without_edges(smart: Callable[..., Plan], model: str) -> None:
    expected = set()
    for container, count, parts in SMART[model]:
        expected |= in_blocks(container, list(range(count)), parts)
    plan = smart(model, edge_blocks=0)
    wanted = {"nvfp4": expected - READ, "float8_e4m3fn": expected & READ}
    assert formats(plan) == {fmt: names for fmt, names in wanted.items() if names}
    assert plan.warnings == ()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("flux1-dev", in_blocks("double_blocks", list(range(19)), ["img_mod.lin", "txt_mod.lin"])
         | in_blocks("single_blocks", list(range(38)), ["modulation.lin"])),
        ("z-image", in_blocks("layers", list(range(30)), ["adaLN_modulation.0"])),
        ("qwen-image-2512", in_blocks("transformer_blocks", list(range(60)),
                                      ["img_mod.1", "txt_mod.1"])),
        ("unknown-dit", in_blocks("stages", list(range(5)), ["adaLN_modulation.1"])),
    ],
)  # fmt: skip
def test_modulation_setting(smart: Callable[..., Plan], model: str, expected: set[str]) -> None:
    assert formats(smart(model, modulation_format="nvfp4_w4a16"))["nvfp4_w4a16"] == expected


def test_small_layers_stay(smart: Callable[..., Plan]) -> None:
    plan = smart("gated-ltx", min_size=256 * 256 + 1, edge_blocks=0)
    assert formats(plan) == {"nvfp4": in_blocks("transformer_blocks", [0, 1, 2, 3], FEED_FORWARD)}


def test_blocks_are_needed(inventory_named: InventoryNamed) -> None:
    unknown = inventory_named("unknown-dit")
    outside = Inventory({n: la for n, la in unknown.layers.items() if la.block is None})
    with pytest.raises(PlanError, match="quantizes no layer of this model, which is an unknown"):
        make_plan(get_preset("smart").build(), outside)


def test_the_report_says_what_was_taken_for_what(smart: Callable[..., Plan]) -> None:
    lines = describe_plan(smart("unknown-dit")).splitlines()
    assert lines[0] == "model   a transformer that ComfyUI 0.33 does not know (5 stages)"
    assert lines[1] == "blocks  5 stages"
    rows = [
        line.split(maxsplit=6) for line in lines if line.startswith(("nvfp4", "keep", "float8"))
    ]
    assert [(fmt, count, reason) for fmt, count, *_, reason in rows] == [
        ("nvfp4", "18", "rule 6: * in any blocks = nvfp4 (Linear layer inside a block)"),
        ("keep", "5", "rule 2: * that is modulation in any blocks = keep (modulation: it runs on "
                      "one vector per step, and its error shifts whole channels)"),
        ("float8_e4m3fn", "6", "rule 3: * in first:1 = float8_e4m3fn (first blocks)"),
        ("float8_e4m3fn", "6", "rule 4: * in last:1 = float8_e4m3fn (last blocks)"),
        ("keep", "2", "no rule matches: keep"),
        ("keep", "5", "rule 1: * that is adapter or embedder or gate = keep (adapters, refiners, "
                      "embeddings and gates are sensitive and small)"),
    ]  # fmt: skip


def test_many_refusals_of_one_reason_are_one_warning(inventory_named: InventoryNamed) -> None:
    """A user who asks for a format by name is told where another one is taken."""
    recipe = get_preset("smart").build().with_rules(parse_rule_lines("visual.blocks.* = nvfp4"))
    plan = make_plan(recipe, inventory_named("qwen2.5-vl-7b"))
    assert [warning.split(": ")[0] for warning in plan.warnings] == [
        "visual.blocks.0.mlp.down_proj, visual.blocks.1.mlp.down_proj, "
        "visual.blocks.2.mlp.down_proj and 29 more become float8_e4m3fn instead of nvfp4",
        "visual.blocks.0.mlp.gate_proj, visual.blocks.0.mlp.up_proj, "
        "visual.blocks.1.mlp.gate_proj and 61 more become float8_e4m3fn instead of nvfp4",
    ]
