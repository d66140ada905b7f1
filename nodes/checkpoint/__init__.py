"""Nodes that inspect and rescale checkpoints and compare samples."""
