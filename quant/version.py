"""The version recorded in what the tool writes (kept equal to pyproject.toml by a test)."""

VERSION = "0.1.0"
