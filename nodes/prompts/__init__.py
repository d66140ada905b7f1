"""Prompts as they arrive: saved with older node ids, and validated input by input."""
