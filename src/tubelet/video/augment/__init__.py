"""Frames -> training clip: crop, flip, colour, RandAugment, erase."""
