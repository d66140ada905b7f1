"""NVFP4 Foundry: mixed-precision NVFP4 checkpoints, made and calibrated inside ComfyUI.

ComfyUI imports this file to find the nodes. Tests and the command line import the package as
``nvfp4_foundry``. The import needs neither ComfyUI nor torch.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Return the pack's ``ComfyExtension``. ComfyUI calls this once at start."""
    from .nodes.extension import FoundryExtension

    return FoundryExtension()
