"""The backend: torch, numpy, safetensors, comfy-kitchen, gguf; never ComfyUI."""

#: Recorded in what the tool writes; a test keeps it equal to pyproject.toml.
VERSION = "0.1.0"
