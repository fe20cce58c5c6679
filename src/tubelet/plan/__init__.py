"""`tubelet plan`: what a run takes."""
