"""Convert a safetensors file to NVFP4 with comfy-kitchen's eager quantizer and nothing else.

The shortest converter that one would write: each matrix whose shape allows it through the kernel,
everything else unchanged, one tensor after the other. ``bench/peers.py`` runs it as a peer.
"""

from __future__ import annotations

import json
import sys

import comfy_kitchen
import torch
from safetensors import safe_open
from safetensors.torch import save_file

_LARGEST = 6.0 * 448.0


def main() -> None:
    """Convert the first argument to the second."""
    source, target = sys.argv[1:]
    written: dict[str, torch.Tensor] = {}
    marker = torch.frombuffer(
        bytearray(json.dumps({"format": "nvfp4"}).encode()), dtype=torch.uint8
    )
    with safe_open(source, "pt") as file, comfy_kitchen.use_backend("eager"):
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            if tensor.dim() != 2 or tensor.shape[0] % 16 or tensor.shape[1] % 32:
                written[name] = tensor
                continue
            scale = tensor.abs().amax().float() / _LARGEST
            codes, scales = comfy_kitchen.quantize_nvfp4(tensor, scale)[:2]
            layer = name.removesuffix(".weight")
            written |= {
                name: codes,
                f"{layer}.weight_scale": scales,
                f"{layer}.weight_scale_2": scale,
                f"{layer}.comfy_quant": marker.clone(),
            }
    save_file(written, target)


if __name__ == "__main__":
    main()
