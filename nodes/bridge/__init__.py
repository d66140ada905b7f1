"""Code that depends on ComfyUI's internals: weights, wrappers, loading, progress."""
