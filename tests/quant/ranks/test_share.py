"""Work is shared out once, evenly, and the same on every rank."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from nvfp4_foundry.quant.ranks.share import shares

COSTS = st.lists(st.floats(0, 1e12), max_size=40)


@given(COSTS, st.integers(1, 9))
def test_every_piece_once_and_no_rank_has_much_more(costs: list[float], ranks: int) -> None:
    owned = shares(costs, ranks)
    assert len(owned) == ranks
    assert sorted(piece for pieces in owned for piece in pieces) == list(range(len(costs)))
    assert all(pieces == sorted(pieces) for pieces in owned)
    loads = [sum(costs[piece] for piece in pieces) for pieces in owned]
    # the rank with the most took its last piece when it had no more than the mean
    assert max(loads) <= (sum(costs) / ranks + max(costs, default=0)) * (1 + 1e-9)


def test_the_dearest_first() -> None:
    assert shares([1, 1, 1, 3], 2) == [[3], [0, 1, 2]]
    assert shares([5, 4, 3, 3, 3], 2) == [[0, 3], [1, 2, 4]]
    assert shares([1], 3) == [[0], [], []]
