"""Nodes that quantize models and save checkpoints."""
