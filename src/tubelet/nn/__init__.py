"""Pure pieces: layers without knowledge of a paper."""
