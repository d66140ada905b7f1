"""Nodes that make recipes from files and measurements."""
