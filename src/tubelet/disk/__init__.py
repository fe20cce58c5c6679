"""Writing and finding files: atomic writes, locks, checksums, the layout of a run folder; knows no model, no recipe."""
