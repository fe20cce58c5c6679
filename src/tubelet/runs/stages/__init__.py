"""Several runs one after the other: progressive training."""
