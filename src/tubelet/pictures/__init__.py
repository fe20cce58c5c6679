"""Reconstructions and reports to look at."""
