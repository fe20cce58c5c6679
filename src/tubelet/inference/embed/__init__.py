"""Embeddings of many videos: windows, units, Parquet."""
