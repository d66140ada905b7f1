"""NVFP4 Foundry: mixed-precision NVFP4 checkpoints, made and calibrated inside ComfyUI.

ComfyUI imports this file to find the nodes; tests and the command line import the package
as ``nvfp4_foundry``. Importing it needs neither ComfyUI nor torch.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Return the pack's ``ComfyExtension`` (called by ComfyUI once at start)."""
    from .nodes.extension import FoundryExtension

    return FoundryExtension()
