"""The training loop and what it keeps: schedules, checkpoints, logs."""
