"""Shared options, bars, watch."""
