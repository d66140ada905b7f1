"""E2M1: round to the sixteen 4-bit floating-point values, and pack two into a byte.

The magnitudes {0, 0.5, 1, 1.5, 2, 3, 4, 6} have codes 0 to 7, and the sign is bit 3. ComfyUI packs
the even column into the high nibble.
"""

from __future__ import annotations

import torch

E2M1_MAX = 6.0
#: The magnitudes of codes 0 to 7.
E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

_SIGN_BIT = -(1 << 31)
_EXPONENT_MASK = 0x7F800000
_EXPONENT_OF_ONE = 0x3F800000


class E2M1Workspace:
    """Scratch buffers for rounding chunks of at most ``capacity`` values.

    New buffers for every chunk would take longer than the arithmetic, because the operating system
    has to provide fresh pages.
    """

    def __init__(self, capacity: int, device: torch.device, *, keep_residual: bool = False):
        self.values = torch.empty(capacity, dtype=torch.float32, device=device)
        self._signs = torch.empty(capacity, dtype=torch.int32, device=device)
        self._magic = torch.empty(capacity, dtype=torch.float32, device=device)
        self._codes = torch.empty(capacity, dtype=torch.int8, device=device)
        self._residual = torch.empty_like(self.values) if keep_residual else None

    def encode(self, count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Round the first ``count`` of `values` to E2M1, half to even, saturating.

        ``count`` is even. `values` is overwritten.

        Returns:
            Packed codes 0 to 255 as int16 ``[count / 2]``, and ``|value| - |rounded|`` (float32
            ``[count]``) if the workspace was made with ``keep_residual``.

        Adding 2^22 times the value's power of two puts the E2M1 grid into the low mantissa bits of
        the sum, and the addition itself rounds half to even. The spacing of the grid is 0.5 below
        2, 1 below 4 and 2 above. The code is these bits plus two per binade.
        """
        values = self.values[:count]
        bits = values.view(torch.int32)
        signs = self._signs[:count]
        torch.bitwise_and(bits, _SIGN_BIT, out=signs)
        values.abs_()
        residual = None
        if self._residual is not None:
            residual = self._residual[:count]
            residual.copy_(values)
        values.clamp_(max=E2M1_MAX)

        magic = self._magic[:count]
        magic_bits = magic.view(torch.int32)
        torch.bitwise_and(bits, _EXPONENT_MASK, out=magic_bits)
        magic_bits.clamp_(min=_EXPONENT_OF_ONE).add_(22 << 23)
        values.add_(magic)
        if residual is not None:
            residual.add_(magic.sub_(values))  # magic - values is exactly -rounded

        torch.bitwise_right_shift(bits, 22, out=magic_bits)
        bits.add_(magic_bits).sub_(2).bitwise_and_(7)
        signs.bitwise_right_shift_(28)
        bits.bitwise_or_(signs)
        codes = self._codes[:count]
        codes.copy_(bits)
        # A pair of codes read as one little-endian int16: low byte is the even column.
        pairs = codes.view(torch.int16)
        packed = (pairs >> 8).bitwise_and_(0x0F)
        packed.bitwise_or_(pairs << 4)
        return packed.bitwise_and_(0xFF), residual


def round_to_e2m1(values: torch.Tensor, scratch: torch.Tensor) -> None:
    """Round float32 values in place to the nearest E2M1 value, half to even, saturating.

    Adds and subtracts 2^22 times the value's power of two, see `E2M1Workspace.encode`. NaN stays
    NaN. ``scratch`` is float32 of the same shape and is overwritten.
    """
    values.clamp_(-E2M1_MAX, E2M1_MAX)
    magic_bits = scratch.view(torch.int32)
    torch.bitwise_and(values.view(torch.int32), _EXPONENT_MASK, out=magic_bits)
    magic_bits.clamp_(min=_EXPONENT_OF_ONE).add_(22 << 23)
    scratch.copysign_(values)
    values.add_(scratch).sub_(scratch)


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """Return float32 values ``[rows, 2 * columns]`` of packed uint8 codes ``[rows, columns]``.

    Read as fp16, the same exponent and mantissa bits mean the value divided by 2^14. Each byte
    becomes two fp16 numbers in one little-endian int32. The low half is the even column.
    """
    rows, columns = packed.shape
    codes = packed.to(torch.int32)
    pairs = (codes & 0x80) << 8
    pairs.bitwise_or_((codes & 0x70).bitwise_left_shift_(5))
    pairs.bitwise_or_((codes & 0x08).bitwise_left_shift_(28))
    pairs.bitwise_or_((codes & 0x07).bitwise_left_shift_(25))
    return pairs.view(torch.float16).view(rows, columns * 2).float().mul_(2.0**14)
