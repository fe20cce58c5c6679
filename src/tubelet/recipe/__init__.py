"""What describes a run: typed, strict, printable as YAML, overridable from the command line, read back from a file."""

from tubelet.recipe.data import Data, LabelledData, reading_of
from tubelet.recipe.kinds import FinetuneRecipe, PretrainRecipe
from tubelet.recipe.run import Optim, Run, Schedule, Views
from tubelet.recipe.text import override, parse_recipe, read_recipe, to_yaml, write_recipe

__all__ = [
    "Data",
    "FinetuneRecipe",
    "LabelledData",
    "Optim",
    "PretrainRecipe",
    "Run",
    "Schedule",
    "Views",
    "override",
    "parse_recipe",
    "read_recipe",
    "reading_of",
    "to_yaml",
    "write_recipe",
]
