"""Nodes that measure what quantizing each layer costs."""
