"""The backend. It uses torch, numpy, safetensors, comfy-kitchen and gguf, but never ComfyUI."""

#: The version, which written files record. A test keeps it equal to pyproject.toml.
VERSION = "0.1.0"
