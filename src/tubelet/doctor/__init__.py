"""What this machine can do (`tubelet doctor`)."""
