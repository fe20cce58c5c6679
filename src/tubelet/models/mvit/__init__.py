"""MViTv2: its spec and shapes; its network."""
