"""Digests of bytes, which show damage.

XXH3 with 128 bits (xxHash) costs less than copying the bytes does. It finds damage by accident; it
does not protect against somebody who forges a file on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import xxhash

#: The name of the algorithm in files.
ALGORITHM = "xxh3_128"
#: Hex characters of a digest.
LENGTH = 32


def digest_of(data: bytes | str) -> str:
    """Return the digest of bytes, or of a text in UTF-8, in hex."""
    text = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return xxhash.xxh3_128_hexdigest(text)


def digest_of_tensor(tensor: torch.Tensor) -> str:
    """Return the digest of a tensor's dtype, shape and bytes in hex. Lets other threads run."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    found = xxhash.xxh3_128(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
    if flat.numel():
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


def digest_of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return one digest of several named tensors, whatever their order."""
    each = (f"{name} {digest_of_tensor(tensor)}\n" for name, tensor in sorted(tensors.items()))
    return digest_of("".join(each))
