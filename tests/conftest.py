"""Shapes and types in every signature of tubelet are checked while tests run (jaxtyping + beartype)."""

import os

from jaxtyping import install_import_hook

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are tiny, and run side by side

install_import_hook("tubelet", "beartype.beartype")
