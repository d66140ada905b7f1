"""A tiny trained WAN that makes every part of the pack runnable without downloading a model."""
