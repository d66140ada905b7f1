"""Nodes that collect, keep and exchange activation statistics."""
