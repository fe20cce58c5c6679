"""Nearest clips."""
