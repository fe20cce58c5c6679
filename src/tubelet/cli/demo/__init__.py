"""`tubelet demo`: videos made here, pre-training, fine-tuning, a report."""
