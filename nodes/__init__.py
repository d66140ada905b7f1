"""The ComfyUI nodes: thin schemas that call the backend."""
