"""From `recipe.data` to the videos and labels of a run."""
