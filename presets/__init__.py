"""Recipes as data: one JSON file per model family."""
