"""Swin's checkpoints: Video Swin and BEVT under other names, 2-D Swin inflated."""
