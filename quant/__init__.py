"""The backend: sources, recipes, formats, calibration and checkpoints. Knows nothing of ComfyUI."""
