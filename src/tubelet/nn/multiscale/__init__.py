"""What MViTv2 adds: pooling attention, its block, relative positions."""
