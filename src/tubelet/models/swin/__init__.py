"""Video Swin: its spec and network; what its blocks are made of."""
