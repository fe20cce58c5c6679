"""Weights in and out: renames, other people's checkpoints."""
