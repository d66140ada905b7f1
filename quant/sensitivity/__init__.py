"""What each layer of a model loses in each format, measured."""
