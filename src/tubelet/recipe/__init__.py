"""What describes a run: typed, strict, printable as YAML, overridable from the command line, read back from a file."""

from tubelet.recipe.data import Data, LabelledData, LabelledSource, Stream, VideoSource, reading_of
from tubelet.recipe.kinds import SINGLE_RUNS, EncoderRun, FinetuneRecipe, PretrainRecipe, encoder_run
from tubelet.recipe.progressive import ProgressiveRecipe, Stage
from tubelet.recipe.run import FreshHead, Inflate, Optim, Run, SameClasses, Schedule, StartHead, StartPart, Views
from tubelet.recipe.single import SingleRun
from tubelet.recipe.stages import change_stages, resolved
from tubelet.recipe.streams import StreamRecipe, streams_of
from tubelet.recipe.text import (
    AnyRecipe,
    override,
    parse_any_recipe,
    parse_recipe,
    read_any_recipe,
    read_recipe,
    to_yaml,
    write_recipe,
)

__all__ = [
    "SINGLE_RUNS",
    "AnyRecipe",
    "Data",
    "EncoderRun",
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
    "SingleRun",
    "Stage",
    "StartHead",
    "StartPart",
    "Stream",
    "StreamRecipe",
    "VideoSource",
    "Views",
    "change_stages",
    "encoder_run",
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
