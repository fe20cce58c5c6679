"""Counted from shapes: FLOPs, memory, peaks."""
