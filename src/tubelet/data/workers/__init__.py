"""Worker processes and what replaces a dead one."""
