"""A model that is small enough to try all of its mixes."""

from __future__ import annotations

import pytest
from nvfp4_foundry.quant.planning import Inventory, Plan, Recipe, make_plan

from tests.helpers.made_up_models import SMALL, inventory_from


@pytest.fixture
def small() -> tuple[Inventory, Plan]:
    """Return five layers, and a recipe's plan for them."""
    inventory = inventory_from(SMALL)
    rules = [{"pattern": "keep", "format": "keep"}, {"pattern": "odd", "format": "float8_e4m3fn"}]
    return inventory, make_plan(
        Recipe.model_validate({"rules": rules, "default": "nvfp4"}), inventory
    )
