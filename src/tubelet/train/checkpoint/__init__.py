"""Checkpoints, resume, the finished model/."""
