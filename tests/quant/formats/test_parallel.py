"""Several threads give the same results as one thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
import torch
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.formats.parallel import share_chunks
from nvfp4_foundry.quant.rounding.max import MaxRule

CPU = torch.device("cpu")


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["nvfp4", "float8_e4m3fn"])
@pytest.mark.parametrize("inference", [False, True])
def test_threads_change_neither_bits_nor_error(
    name: str, inference: bool, three_threads: None
) -> None:
    fmt, rule = get_format(name), MaxRule()
    with torch.inference_mode(inference):
        weight = torch.randn(1501, 2080).bfloat16()  # three chunks, the last a short one
        shared = fmt.encode(weight, rule, measure_error=True)
        torch.set_num_threads(1)
        alone = fmt.encode(weight, rule, measure_error=True)
    assert shared.relative_error == alone.relative_error
    for suffix, tensor in alone.tensors.items():
        ours = shared.tensors[suffix].reshape(-1).view(torch.uint8)
        assert torch.equal(ours, tensor.reshape(-1).view(torch.uint8)), suffix


def test_every_chunk_is_drawn_once(three_threads: None) -> None:
    drawn: list[int] = []
    chunks = [slice(i, i + 1) for i in range(100)]
    share_chunks(lambda supply: drawn.extend(c.start for c in supply), chunks, CPU)
    assert sorted(drawn) == list(range(100))


def test_threads_do_not_split_operations_and_others_still_do(three_threads: None) -> None:
    seen: list[int] = []
    share_chunks(lambda _: seen.append(torch.get_num_threads()), [slice(0, 1)] * 3, CPU)
    assert seen == [1, 1, 1]
    assert torch.get_num_threads() == 3


def test_an_error_reaches_the_caller_and_stops_the_rest(three_threads: None) -> None:
    done: list[slice] = []

    def loop(chunks: Iterable[slice]) -> None:
        for chunk in chunks:
            if chunk.start == 0:
                raise ValueError("bad chunk")
            done.append(chunk)

    with pytest.raises(ValueError, match="bad chunk"):
        share_chunks(loop, [slice(0, 1)], CPU)
    with pytest.raises(ValueError, match="bad chunk"):
        share_chunks(loop, [slice(i, i + 1) for i in range(100_000)], CPU)
    assert len(done) < 99_999
