"""Shapes and types in every signature of tubelet are checked while tests run (jaxtyping + beartype)."""

import os

from jaxtyping import install_import_hook

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are tiny, and run side by side

# Not cli: to start quickly it imports types for the type checker only, and names them in signatures all the same.
_ROOMS = (
    "data disk doctor eval inference masks methods models nn pictures plan recipe recipes rng runs sets spec targets "
    "train types video weights"
)
install_import_hook([f"tubelet.{room}" for room in _ROOMS.split()], "beartype.beartype")
