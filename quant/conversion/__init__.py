"""The pipeline: turn a source and a plan into a checkpoint and a report on every layer."""
