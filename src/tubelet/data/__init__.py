"""Datasets, their order, batches."""
