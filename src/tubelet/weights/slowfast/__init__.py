"""SlowFast MViTv2/MaskFeat files: name tables, spec, recipe, position tables."""
