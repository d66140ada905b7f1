"""Nodes that make, keep and exchange calibrations."""
