"""Nodes that choose formats and show the plan."""
