"""Folders of transformers, in."""
