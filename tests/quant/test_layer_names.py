"""Names of other tools are translated, and messages on unknown names show similar names."""

from __future__ import annotations

import pytest
from nvfp4_foundry.quant.layer_names import describe_unknown, name_in_model

KNOWN = ["blocks.0.self_attn.q", "blocks.0.ffn.0", "head.head", "model.norm"]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("blocks.0.ffn.0", "blocks.0.ffn.0"),
        ("blocks.0.ffn.0.weight", "blocks.0.ffn.0"),
        ("model.diffusion_model.blocks.0.ffn.0.input_scale", "blocks.0.ffn.0"),
        ("diffusion_model._orig_mod.blocks.0.ffn.0", "blocks.0.ffn.0"),
        ("_orig_mod.blocks.0._orig_mod.self_attn.q", "blocks.0.self_attn.q"),
        ("net.head.head", "head.head"),
        ("model.norm", "model.norm"),
        ("model.nothing.weight", "model.nothing.weight"),
    ],
)
def test_names_of_other_tools(written: str, found: str) -> None:
    assert name_in_model(written, KNOWN) == found


def test_unknown_names_show_the_nearest() -> None:
    text = describe_unknown(["blocks.0.self_atn.q"], KNOWN)
    assert text.startswith("blocks.0.self_atn.q; the nearest names are blocks.0.self_attn.q")
    many = describe_unknown([f"xx{i}zz" for i in range(5)], KNOWN)
    assert many == "xx0zz, xx1zz, xx2zz and 2 more"
