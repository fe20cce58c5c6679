"""Tensors from files without running code; rename; strict fit; what a file says of itself."""
