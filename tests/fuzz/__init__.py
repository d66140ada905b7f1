"""Mutated files for every parser; ``python -m tests.fuzz --inputs 100000`` makes that many."""
