"""What touches ComfyUI's internals: weights of a MODEL, wrappers, loading, progress."""
