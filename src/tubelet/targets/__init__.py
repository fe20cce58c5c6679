"""What a masked model predicts."""
