"""Sensitivity: measure how much each layer of a model loses in each format."""
