"""One file for each kind of run: a recipe in, a finished model out. The room that knows the order of things."""
