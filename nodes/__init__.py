"""The ComfyUI nodes: thin schemas over the backend."""
