"""The pipeline: a source and a plan become a checkpoint and a report of every layer."""
