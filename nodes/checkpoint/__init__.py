"""Nodes that look into checkpoints and compare what they sample."""
