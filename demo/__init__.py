"""A tiny trained WAN, with which every part of the pack runs without the download of a model."""
