"""Nodes that quantize and save."""
