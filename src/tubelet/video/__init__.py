"""Video in: manifests, exact frames, sampling in time, augmentation."""
