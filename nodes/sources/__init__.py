"""Nodes that load the model to quantize."""
