"""Videos made here, for demo and tests."""
