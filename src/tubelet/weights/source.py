"""The one way into a checkpoint of any origin: what it is, and its tensors under our names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tubelet.data.class_names import Names, read_names
from tubelet.disk.layout import AVERAGE_FILE, CLASSES_FILE, MODEL_FILE, RECIPE_FILE, beside, weights_file
from tubelet.disk.tensors import State, in_float32
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, read_recipe
from tubelet.types import ClipShape
from tubelet.weights.huggingface import folder as huggingface
from tubelet.weights.huggingface.tensors import WEIGHTS
from tubelet.weights.official import Official, from_file
from tubelet.weights.slowfast.names import CONVERTERS as MULTISCALE
from tubelet.weights.slowfast.spec import is_multiscale, multiscale_clip
from tubelet.weights.tensors.files import Content, read_content
from tubelet.weights.tensors.given import Given
from tubelet.weights.tensors.options import SavedOptions
from tubelet.weights.tensors.slowfast_config import SlowFastConfig
from tubelet.weights.videomae.shapes import table_tokens, trained_clip

EMBEDDING: Final = "encoder.patch_embed.weight"
GIANT_PATCH: Final = 14
"""Of ViT-g, which only VideoMAE V2 has. The smaller files of V2 have the same names and shapes as those of V1."""
WRAPPER: Final = "classifier."
"""In front of all names where a fine-tuning method was saved whole: the checkpoints of a run."""


@dataclass(frozen=True)
class Source:
    """Tensors under our names, and what the file says of its model.

    `recipe` is the model's where one is there: beside a file of ours, or as the config of a Hugging Face folder.
    Without one, `given` has what helps to find it from the shapes. `is_released` where the names are the authors'.
    """

    file: Path
    format: str
    state: State
    given: Given
    is_released: bool = False
    recipe: PretrainRecipe | FinetuneRecipe | None = None
    names: Names | None = None
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def clip(self) -> ClipShape | None:
        """The clip that the positions were trained for, None where neither recipe, options nor shapes tell."""
        if self.recipe is not None:
            return self.recipe.model.encoder.trained_clip or self.recipe.clip
        if is_multiscale(self.state):
            return multiscale_clip(self.state, self.given.config, self.file)
        options = self.given.options
        if table_tokens(self.state, self.given) is None and not (options.frames and options.size):
            return None
        return trained_clip(self.state, self.given, [])


def read_source(path: Path) -> Source:
    """Read a run, a checkpoint folder, a file of ours, of VideoMAE or of SlowFast (MViTv2), a Hugging Face folder.

    Nothing in it is executed. ValueError in one line where it is missing, damaged, of another model, or wants to run
    code.
    """
    folder = path.parent if path.is_file() and path.name in WEIGHTS else path
    if huggingface.is_huggingface(folder):
        found = huggingface.from_huggingface(folder)
        read = Source(found.file, found.format, found.state, Given(found.file), recipe=found.recipe, names=found.names)
        return replace(read, dropped=found.dropped, notes=found.notes)
    file = weights_file(path)
    content = read_content(file)
    ours = _without_wrapper(content.state)
    if EMBEDDING in ours:
        return _own(file, ours)
    return _official(file, content)


def _own(file: Path, state: State) -> Source:
    recipe_file, names_file = beside(file, RECIPE_FILE), beside(file, CLASSES_FILE)
    names = None if names_file is None else read_names(names_file)
    if recipe_file is None:
        return Source(file, "tubelet weights without a recipe", state, Given(file), names=names)
    recipe = read_recipe(recipe_file)
    what = "pre-training run" if isinstance(recipe, PretrainRecipe) else "fine-tuned classifier"
    notes: tuple[str, ...] = ()
    if file.name == MODEL_FILE and (file.parent / AVERAGE_FILE).is_file():
        notes = (f"the run is not finished; its averaged weights are in {file.parent / AVERAGE_FILE}",)
    return Source(file, f"tubelet {what}", state, Given(file), recipe=recipe, names=names, notes=notes)


def _official(file: Path, content: Content) -> Source:
    config = SlowFastConfig.of(content.options)
    official = from_file(content.state, file, config)
    state, notes = in_float32(official.state)
    given = Given(file, options=SavedOptions.of(content.options), tokens=official.tokens, config=config)
    words = _what(official, given.options)
    notes = (*official.notes, *notes)
    return Source(file, words, state, given, is_released=True, dropped=official.dropped, notes=notes)


def _what(official: Official, options: SavedOptions) -> str:
    if official.kind in MULTISCALE:
        classes = f" classifier, {len(official.state['head.bias'])} classes" if "head.bias" in official.state else ""
        return f"SlowFast {'MaskFeat pre-training' if official.kind == 'maskfeat' else 'MViT' + classes}"
    is_v2 = (
        options.is_v2
        or "encoder.blocks.0.attention.scale" in official.state  # cosine attention
        or official.state[EMBEDDING].shape[-1] == GIANT_PATCH
    )
    version = " V2" if is_v2 else ""
    if "head.bias" in official.state:
        return f"VideoMAE{version} classifier, {len(official.state['head.bias'])} classes"
    if any(name.startswith("decoder.") for name in official.state):
        return f"VideoMAE{version} pre-training"
    return f"VideoMAE{version} encoder alone"


def _without_wrapper(state: State) -> State:
    if not all(name.startswith(WRAPPER) for name in state):
        return state
    return {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
