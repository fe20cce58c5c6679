"""Processes that a bad file may crash or hang."""
