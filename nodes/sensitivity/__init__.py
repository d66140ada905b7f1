"""Nodes that measure how much each layer loses when it is quantized."""
