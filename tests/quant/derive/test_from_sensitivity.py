"""The smallest format within the limit, by hand. An unknown error counts as too large."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nvfp4_foundry.quant.derive import recipe_from_sensitivity
from nvfp4_foundry.quant.derive.overrides import layers_by_shape
from nvfp4_foundry.quant.errors import FormatError, RecipeError
from nvfp4_foundry.quant.fingerprint import ModelFingerprint
from nvfp4_foundry.quant.planning import Recipe, parse_rule_lines
from nvfp4_foundry.quant.planning.plan import decide_format
from nvfp4_foundry.quant.sensitivity.artefact import CandidateErrors, LayerSensitivity, Sensitivity

# W4A4 error in nvfp4, nvfp4_w4a16, float8_e4m3fn
ERRORS: dict[str, tuple[str | None, tuple[float | None, ...]]] = {
    "b.0.q": ("i0", (0.05, 0.04, 0.02)),
    "b.0.k": ("i0", (0.09, 0.06, 0.02)),
    "b.0.o": ("i1", (0.11, 0.09, 0.03)),
    "b.0.f": ("i2", (0.20, 0.15, 0.10)),
    "b.1.q": ("i3", (None, None, None)),
    "b.1.k": ("i3", (0.05, 0.04, 0.02)),
    "b.1.o": (None, (0.08, 0.05, 0.02)),
    "b.1.f": ("i4", (None, 0.05, 0.02)),
    "head": ("i5", (0.01, 0.01, 0.01)),
}
FORMATS = ("nvfp4", "nvfp4_w4a16", "float8_e4m3fn")
SENSITIVITY = Sensitivity(
    ModelFingerprint({}, {}),
    "weighted",
    {
        name: LayerSensitivity(
            name, (64, 64), shared,
            {f: CandidateErrors(w4a4=e) for f, e in zip(FORMATS, errors, strict=True)},
        )
        for name, (shared, errors) in ERRORS.items()
    },
)  # fmt: skip
BASE = Recipe(name="base", rules=parse_rule_lines("b.0.* = nvfp4\nb.1.* = float8_e4m3fn"))


def chosen(recipe: Recipe) -> dict[str, str]:
    layers = layers_by_shape(dict.fromkeys(ERRORS, (64, 64))).layers
    return {name: decide_format(recipe, layer)[0] for name, layer in layers.items()}


def test_the_cheapest_within_the_limit() -> None:
    derived = recipe_from_sensitivity(SENSITIVITY, BASE, 0.08)
    assert chosen(derived.recipe) == {
        "b.0.q": "nvfp4_w4a16",  # k shares its input and needs it
        "b.0.k": "nvfp4_w4a16",
        "b.0.o": "float8_e4m3fn",
        "b.0.f": "keep",
        "b.1.q": "keep",  # unknown, and with it its neighbour
        "b.1.k": "keep",
        "b.1.o": "nvfp4",  # the limit itself is kept
        "b.1.f": "nvfp4_w4a16",
        "head": "keep",  # the base keeps it, however small its error
    }
    reasons = {r.format: r.why for r in derived.recipe.rules if r not in BASE.rules}
    assert reasons["nvfp4"] == "measured error at most 8.00%"
    whys = {r.why for r in derived.recipe.rules}
    assert {"the error is unknown", "the error is above 8.00% in every format"} <= whys
    assert derived.notes[0] == "8 of 8 quantized Linear layers get another format"


def test_what_was_not_measured_is_unknown() -> None:
    model = ModelFingerprint({**dict.fromkeys(ERRORS, (64, 64)), "b.1.extra": (64, 64)}, {})
    recipe = recipe_from_sensitivity(replace(SENSITIVITY, fingerprint=model), BASE, 0.5).recipe
    keeping = next(rule for rule in recipe.rules if rule.format == "keep")
    assert "b.1.extra" in keeping.pattern and keeping.why == "the error is unknown"


def test_formats_and_what_is_left_can_be_chosen() -> None:
    derived = recipe_from_sensitivity(
        SENSITIVITY, BASE, 0.08, ("float8_e4m3fn", "nvfp4"), otherwise="bf16"
    )
    formats = chosen(derived.recipe)
    assert formats["b.0.q"] == formats["b.1.f"] == "float8_e4m3fn"
    assert formats["b.0.f"] == formats["b.1.q"] == "bf16"


def test_only_changes_are_listed() -> None:
    derived = recipe_from_sensitivity(SENSITIVITY, BASE, 0.5)
    listed = {name for rule in derived.recipe.rules for name in rule.layer_names()}
    assert not listed & {"b.0.q", "b.0.k", "b.0.o", "b.0.f", "head"}
    assert derived.recipe.rules[-2:] == BASE.rules


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(RecipeError, match="between 0 and 1"):
        recipe_from_sensitivity(SENSITIVITY, BASE, 8)
    with pytest.raises(RecipeError, match=r"bf16 was not measured; choose from .* formats: nvfp4"):
        recipe_from_sensitivity(SENSITIVITY, BASE, 0.1, ("bf16",))
    with pytest.raises(FormatError):
        recipe_from_sensitivity(SENSITIVITY, BASE, 0.1, ("nvfp5",))
    with pytest.raises(FormatError):
        recipe_from_sensitivity(SENSITIVITY, BASE, 0.1, otherwise="nvfp5")
    with pytest.raises(RecipeError, match="quantizes none"):
        recipe_from_sensitivity(SENSITIVITY, Recipe(), 0.1)
