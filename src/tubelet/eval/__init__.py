"""Fine-tuning, test views, metrics, pictures."""
