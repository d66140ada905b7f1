"""WAN and the models that grew out of it."""

from __future__ import annotations

import json

from tiny_family import Family, Seen

_WAN = {
    "model_type": "t2v", "patch_size": (1, 2, 2), "dim": 128, "ffn_dim": 256, "num_heads": 1,
    "num_layers": 3, "in_dim": 16, "out_dim": 16,
}  # fmt: skip
_LATENT = (1, 16, 2, 4, 4)
_TEXT = (1, 5, 4096)
_IMAGE = {"clip_vision_output": Seen((1, 257, 1280))}
_REFERENCE = [(1, 16, 1, 4, 4)]


def _said(**values: object) -> dict[str, str]:
    """Return the metadata of a file that says of itself what no shape says."""
    return {"config": json.dumps({"transformer": values})}


FAMILIES = {
    "wan2.1-t2v": Family("wan.model:WanModel", _WAN, _LATENT, _TEXT),
    "wan2.1-i2v": Family(
        "wan.model:WanModel", _WAN | {"model_type": "i2v", "in_dim": 36},
        _LATENT, _TEXT, extra=_IMAGE | {"concat_latent_image": (1, 16, 2, 4, 4)},
    ),
    "wan2.2-ti2v": Family(
        "wan.model:WanModel", _WAN | {"in_dim": 48, "out_dim": 48}, (1, 48, 1, 4, 4), _TEXT
    ),
    "wan-fun-control": Family(
        "wan.model:WanModel", _WAN | {"model_type": "i2v", "in_dim": 48},
        _LATENT, _TEXT, extra=_IMAGE | {"concat_latent_image": (1, 32, 2, 4, 4)},
    ),
    "wan-vace": Family(
        "wan.model:VaceWanModel",
        _WAN | {"model_type": "vace", "vace_layers": 3, "vace_in_dim": 96}, _LATENT, _TEXT,
        extra={"vace_frames": [(1, 32, 2, 4, 4)]},
    ),
    "wan-camera": Family(
        "wan.model:CameraWanModel", _WAN | {"model_type": "camera", "in_dim": 32}, _LATENT, _TEXT,
        extra=_IMAGE | {"camera_conditions": (1, 24, 2, 32, 32)},
    ),
    "wan2.2-camera": Family(
        "wan.model:CameraWanModel", _WAN | {"model_type": "camera_2.2", "in_dim": 36},
        _LATENT, _TEXT, extra={"camera_conditions": (1, 24, 2, 32, 32)},
    ),
    "wan-humo": Family(
        "wan.model:HumoWanModel", _WAN | {"model_type": "humo"}, _LATENT, _TEXT,
        extra={"audio_embed": (1, 2, 8, 5, 1280), "reference_latents": _REFERENCE},
    ),
    "wan-s2v": Family(
        "wan.model:WanModel_S2V", _WAN | {"model_type": "s2v"}, _LATENT, _TEXT,
        extra={"audio_embed": (1, 25, 1024, 8), "reference_latents": _REFERENCE,
               "control_video": (1, 16, 2, 4, 4)},
        sizes={"audio_inject_layers": [0, 1, 2]},
    ),
    "wan-animate": Family(
        "wan.model_animate:AnimateWanModel",
        _WAN | {"model_type": "animate", "in_dim": 36, "num_layers": 5}, _LATENT, _TEXT,
        # Without the face: its encoder is convolutions at one size, half a minute on a CPU.
        extra=_IMAGE | {"pose_video_latent": (1, 16, 1, 4, 4)},
    ),
    "wan-animate2": Family(
        "wan.model_animate2:WanAnimate2Model", _WAN | {"model_type": "animate2", "in_dim": 36},
        _LATENT, _TEXT, metadata=_said(model_type="animate2"),
        extra=_IMAGE | {"pose_video_latent": (1, 16, 1, 4, 4)},
    ),
    "wan-scail": Family(
        "wan.model:SCAILWanModel", _WAN | {"model_type": "scail", "in_dim": 20}, _LATENT, _TEXT,
        extra=_IMAGE | {"pose_video_latent": (1, 16, 2, 2, 2), "reference_latents": _REFERENCE},
    ),
    "wan-scail2": Family(
        "wan.model:SCAIL2WanModel", _WAN | {"model_type": "scail2", "in_dim": 20}, _LATENT, _TEXT,
        extra=_IMAGE | {"pose_video_latent": (1, 16, 2, 2, 2), "reference_latents": _REFERENCE,
                        "driving_mask_28ch": (1, 2, 28, 2, 2)},
    ),
    "wan-dancer": Family(
        "wan.model_wandancer:WanDancerModel", _WAN | {"model_type": "wandancer", "in_dim": 36},
        (1, 16, 2, 8, 8), _TEXT, extra=_IMAGE | {"audio_embed": (1, 16, 35), "fps": 30},
        sizes={"audio_inject_layers": [0, 1, 2]},
    ),
    "wan-flow-rvs": Family(
        "wan.model:WanModel", _WAN, _LATENT, _TEXT, metadata=_said(model_type="flow_rvs"),
    ),
}  # fmt: skip
