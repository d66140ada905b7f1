"""The place of a process among ranks, as the environment says."""

from __future__ import annotations

import pytest
from nvfp4_foundry.quant.errors import RankError
from nvfp4_foundry.quant.ranks.place import place_here


@pytest.mark.parametrize("variables", [{}, {"RANK": "0"}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_alone(variables: dict[str, str]) -> None:
    assert place_here(variables) is None


def test_one_of_several() -> None:
    place = place_here({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "GROUP_RANK": "1"})
    assert place is not None
    assert (place.rank, place.size, place.local_rank) == (3, 4, 1)


@pytest.mark.parametrize(
    ("rank", "size"), [("x", "2"), ("2", "2"), ("-1", "2"), ("", "2"), ("0", "0")]
)
def test_nonsense_is_refused(rank: str, size: str) -> None:
    with pytest.raises(RankError, match="torchrun"):
        place_here({"RANK": rank, "WORLD_SIZE": size})
