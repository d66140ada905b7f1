"""Nodes that make, edit and save recipes and show the plan."""
