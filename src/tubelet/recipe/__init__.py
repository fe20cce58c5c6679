"""What describes a run: typed, strict, printable as YAML, overridable from the command line, read back from a file."""

from tubelet.recipe.data import Data, LabelledData, LabelledSource, Stream, VideoSource, reading_of
from tubelet.recipe.kinds import FinetuneRecipe, PretrainRecipe
from tubelet.recipe.progressive import ProgressiveRecipe, Stage
from tubelet.recipe.run import FreshHead, Optim, Run, SameClasses, Schedule, StartHead, Views
from tubelet.recipe.stages import change_stages, resolved
from tubelet.recipe.streams import StreamRecipe, streams_of
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
    "Stream",
    "StreamRecipe",
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
    "streams_of",
    "to_yaml",
    "write_recipe",
]
