"""Put layers into their lists of blocks, for pictures."""

from __future__ import annotations

from collections.abc import Mapping

from ...planning.inventory import block_positions
from .sheet import Cell, Panel


def arranged(
    cells: Mapping[str, Cell], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[list[Panel], dict[str, Cell]]:
    """Return layers in lists of blocks, and those outside of any block.

    ``shapes`` are of the 2-D weights of the whole model, by layer: they show what is a block.
    """
    positions = block_positions({f"{name}.weight": shape for name, shape in shapes.items()})
    grids: dict[str, dict[tuple[str, int], Cell]] = {}
    counts: dict[str, int] = {}
    outside: dict[str, Cell] = {}
    for name, cell in cells.items():
        block = positions.get(name)
        if block is None:
            outside[name] = cell
            continue
        kind = name.removeprefix(f"{block.container}.{block.index}.")
        grids.setdefault(block.container, {})[kind, block.index] = cell
        counts[block.container] = block.count
    panels = [
        Panel(container, tuple(dict.fromkeys(kind for kind, _ in grid)), counts[container], grid)
        for container, grid in grids.items()
    ]
    return panels, outside
