"""This process and its peers: device, signals, ranks, heartbeat, sharded tensors."""
