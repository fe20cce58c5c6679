"""What describes a run: typed, strict, printable as YAML, overridable from the command line, read back from a file."""

from tubelet.recipe.data import Data, LabelledData, LabelledSource, VideoSource, reading_of
from tubelet.recipe.kinds import FinetuneRecipe, PretrainRecipe
from tubelet.recipe.progressive import ProgressiveRecipe, Stage
from tubelet.recipe.run import FreshHead, Inflate, Optim, Run, SameClasses, Schedule, StartHead, StartPart, Views
from tubelet.recipe.stages import change_stages, resolved
from tubelet.recipe.text import (
    override,
    parse_any_recipe,
    parse_recipe,
    read_any_recipe,
    read_recipe,
    to_yaml,
    write_recipe,
)

__all__ = [
    "Data",
    "FinetuneRecipe",
    "FreshHead",
    "Inflate",
    "LabelledData",
    "LabelledSource",
    "Optim",
    "PretrainRecipe",
    "ProgressiveRecipe",
    "Run",
    "SameClasses",
    "Schedule",
    "Stage",
    "StartHead",
    "StartPart",
    "VideoSource",
    "Views",
    "change_stages",
    "override",
    "parse_any_recipe",
    "parse_recipe",
    "read_any_recipe",
    "read_recipe",
    "reading_of",
    "resolved",
    "to_yaml",
    "write_recipe",
]
