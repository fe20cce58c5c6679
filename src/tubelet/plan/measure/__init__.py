"""Measured on this machine: kernels, bytes of attention, real steps."""
