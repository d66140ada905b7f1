"""Every E2M1 and E4M3 code decodes to the value the formats define."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.formats.e2m1 import unpack
from nvfp4_foundry.quant.formats.e4m3 import decode_e4m3
from nvfp4_foundry.quant.rounding.max import MaxRule

BYTES = torch.arange(256, dtype=torch.uint8)


def test_e4m3_equals_torch_for_every_code() -> None:
    codes = BYTES.view(torch.float8_e4m3fn)
    for part in (codes, codes[:127], codes[3], codes[:0], codes.view(16, 16).T):
        ours, theirs = decode_e4m3(part), part.float()
        assert ours.shape == theirs.shape
        numbers = ~theirs.isnan()
        assert torch.equal(ours.isnan(), theirs.isnan())
        assert torch.equal(ours[numbers].view(torch.int32), theirs[numbers].view(torch.int32))


def test_e2m1_of_every_byte() -> None:
    magnitudes = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    values = torch.tensor([*magnitudes, *(-m for m in magnitudes)])
    expected = torch.stack([values[BYTES.long() >> 4], values[BYTES.long() & 15]], -1)
    ours = unpack(BYTES.view(16, 16)).view(256, 2)
    assert torch.equal(ours.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("name", ["nvfp4", "float8_e4m3fn"])
def test_decoding_some_rows_equals_those_rows_of_all(name: str) -> None:
    fmt, shape = get_format(name), (424, 96)
    tensors = fmt.encode(torch.randn(shape), MaxRule()).tensors
    whole = fmt.decode(tensors, shape)
    for start, stop in ((0, 424), (0, 1), (127, 129), (128, 256), (200, 424), (423, 424)):
        assert torch.equal(fmt.decode(tensors, shape, slice(start, stop)), whole[start:stop])
