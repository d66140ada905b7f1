"""Nodes that load what is to be quantized."""
