"""TimeSformer's checkpoints, its authors' and Hugging Face's: the same tensors under other names."""
