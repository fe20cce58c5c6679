"""From what a recipe says of its target to one that can be asked: frozen networks are read and checked here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from tubelet.methods.classifier import Classifier
from tubelet.models.encoders import encoder_for
from tubelet.nn.pixels import resized
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.targets.features import Features
from tubelet.targets.frozen import FrozenSpec, FrozenTarget
from tubelet.targets.teachers import FrameFeatures, FrameIds, StubTeacher, VideoFeatures
from tubelet.targets.unions import Target
from tubelet.types import ClipShape, Grid
from tubelet.weights.checkpoint import Checkpoint, encoder_state
from tubelet.weights.dalle import dvae_spec, dvae_tensors, read_dvae
from tubelet.weights.huggingface.image_models import is_image_folder, read_image_model
from tubelet.weights.read import read_model
from tubelet.weights.tensors.files import SAFETENSORS


@dataclass(frozen=True)
class _FoundTeacher:
    """A network that fits; `build` reads its weights, where they were not needed to know it."""

    width: int
    answer: Tensor
    file: Path
    build: Callable[[], nn.Module]
    notes: tuple[str, ...] = ()


def live_target(recipe: PretrainRecipe) -> Target:
    """The target of a recipe, ready to be asked; its networks, if it has some, are on the CPU, in eval mode.

    ValueError in one line where one is not named, missing or damaged, or does not fit the recipe's clips and grid.
    """

    def read(spec: FrozenSpec) -> FrozenTarget:
        found = _found(spec, recipe)
        return FrozenTarget(spec, found.build(), width=found.width, file=found.file, notes=found.notes)

    with torch.device("cpu"):  # also where the model is a shell
        return recipe.target.ready(read, recipe.model.encoder.cube)


def planned_target(recipe: PretrainRecipe, teacher: Checkpoint | None = None) -> Target:
    """The same, and the same errors, but no network is built: it says the same of every clip. For plans and shapes.

    A `teacher` that was read stands for the one that the recipe names, of several for that which lies where it is from;
    its tensors may be without numbers.
    """
    asking = [spec for spec in recipe.target.specs if spec.asks is not None]

    def read(spec: FrozenSpec) -> FrozenTarget:
        stands = teacher is not None and (len(asking) == 1 or _lies_in(teacher.file, spec.teacher))
        found = _found(spec, recipe, teacher if stands else None)
        return FrozenTarget(spec, StubTeacher(found.answer), width=found.width, file=found.file)

    with torch.device("cpu"):
        return recipe.target.ready(read, recipe.model.encoder.cube)


class _TeacherLook(NamedTuple):
    """A teacher that is to be looked at: what asks it, where it is, what it is for, and itself where it was read."""

    spec: Any
    path: Path
    clip: ClipShape
    grid: Grid
    read: Checkpoint | None

    @property
    def imported(self) -> Checkpoint:
        """The model, as all models are read."""
        return self.read or read_model(self.path)


def _found(spec: FrozenSpec, recipe: PretrainRecipe, teacher: Checkpoint | None = None) -> _FoundTeacher:
    kind = KINDS[spec.kind]
    if spec.teacher is None:
        raise ValueError(f"target {spec.kind}: no network to ask: give {kind.wanted} with target.teacher=PATH")
    path, grid = Path(spec.teacher), recipe.clip.grid(recipe.model.encoder.cube)
    if teacher is None and not path.exists():
        raise ValueError(f"{path}: no such teacher; give {kind.wanted} with target.teacher=PATH")
    return kind.find(_TeacherLook(spec, path, recipe.clip, grid, teacher))


def _lies_in(file: Path, place: str | None) -> bool:
    return place is not None and file.resolve().is_relative_to(Path(place).resolve())


def _features(look: _TeacherLook) -> _FoundTeacher:
    folder = look.path.parent if look.path.suffix == SAFETENSORS else look.path
    if look.read is None and is_image_folder(folder):
        return _image_teacher(folder, look.spec, look.grid)
    return _video_teacher(look.imported, look.spec, look.clip, look.grid)


def _video_teacher(read: Checkpoint, spec: Features, clip: ClipShape, grid: Grid) -> _FoundTeacher:
    trained = read.recipe.clip
    if spec.frames != "first":
        raise ValueError(
            f"{read.file}: target.frames={spec.frames} is for image teachers, and this one sees clips: leave it out"
        )
    if trained.frames != clip.frames:
        raise ValueError(
            f"{read.file}: the teacher sees clips of {trained.frames} frames, this recipe makes {clip.frames}: "
            f"set clip.frames={trained.frames}, or give a teacher for {clip.frames}"
        )
    patch = read.recipe.model.encoder.cube.height
    if spec.size is not None and spec.size % patch:
        raise ValueError(f"{read.file}: target.size {spec.size} is not a multiple of the teacher's patch {patch}")
    read = read.resized(ClipShape(frames=trained.frames, size=spec.size or trained.size))
    with torch.device("meta"):
        encoder = encoder_for(read.recipe.model.encoder, read.recipe.clip, encoder_state(read.state))
    if encoder.out_grid != grid:
        cube = encoder.spec.cube
        change = (
            f"set target.size={grid.h * cube.height}, which interpolates its positions"
            if encoder.out_grid.t == grid.t
            else f"choose cubes of {cube.frames} frames (model.encoder.tubelet of a ViT), or another teacher"
        )
        raise ValueError(
            f"{read.file}: the teacher's tokens are {_words(encoder.out_grid)} (clips of {trained.frames} frames of "
            f"{read.recipe.clip.size} pixels, cubes of {_words(cube)}), this recipe's {_words(grid)}: {change}"
        )
    answer = torch.zeros(()).expand(grid.tokens, encoder.out_width)
    note = f"targets from {read.file}: {read.format}, {encoder.out_width} features a token"
    return _FoundTeacher(
        encoder.out_width, answer, read.file, lambda: VideoFeatures(read.build_encoder()), (note, *read.notes)
    )


def _image_teacher(path: Path, spec: Features, grid: Grid) -> _FoundTeacher:
    model = read_image_model(path)
    size = spec.size or grid.h * model.patch
    made = size // model.patch
    if size % model.patch or (made, made) != (grid.h, grid.w):
        raise ValueError(
            f"{path}: the teacher's patches of {model.patch} pixels make {made} x {made} of a frame of {size}, this "
            f"recipe's grid is {grid.h} x {grid.w}: set target.size={grid.h * model.patch}, or leave it out"
        )

    def build() -> nn.Module:
        return FrameFeatures(model.load(), grid=grid, which=spec.frames, size=size, colours=model.colours)

    trained = f", trained with {model.trained_size}" if model.trained_size not in (0, size) else ""
    note = (
        f"targets from {path}: {model.kind}, {model.width} features a token; it sees frames of {size} pixels{trained}"
    )
    return _FoundTeacher(model.width, torch.zeros(()).expand(grid.tokens, model.width), path, build, (note,))


def _classifier(look: _TeacherLook) -> _FoundTeacher:
    read, clip = look.imported, look.clip
    trained = read.recipe.clip
    if not isinstance(read.recipe, FinetuneRecipe) or not read.has_head:
        raise ValueError(f"{read.file}: no classes in it ({read.format}), so it gives no pseudo-labels")
    if trained.frames != clip.frames:
        raise ValueError(
            f"{read.file}: the classifier takes clips of {trained.frames} frames, this recipe makes "
            f"{clip.frames}: set clip.frames={trained.frames}, or give a classifier for {clip.frames}"
        )
    classes = len(read.state["head.bias"])
    notes = (f"targets from {read.file}: {read.format}, {classes} classes", *read.notes)
    return _FoundTeacher(classes, torch.zeros(classes), read.file, lambda: ClassScores(read.build_classifier()), notes)


def _tokenizer(look: _TeacherLook) -> _FoundTeacher:
    path, grid = look.path, look.grid
    spec = dvae_spec(dvae_tensors(path), path)
    note = f"targets from {path}: {spec.vocabulary} ids; it sees frames of {grid.h * spec.patch} pixels"
    answer = torch.zeros((), dtype=torch.int64).expand(grid.tokens)
    return _FoundTeacher(spec.vocabulary, answer, path, lambda: FrameIds(read_dvae(path), grid=grid), (note,))


class ClassScores(nn.Module):
    """The logits of a classifier for clips of any size."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, video: Num[Tensor, "B C T H W"]) -> Float[Tensor, "B classes"]:
        """As the classifier's head gives them."""
        logits: Tensor = self.classifier(resized(video, self.classifier.encoder.clip.size))
        return logits


class Teachers(NamedTuple):
    """What the teachers of a kind of target are, in words for the user, and how one is looked at."""

    wanted: str
    find: Callable[[_TeacherLook], _FoundTeacher]


KINDS: Final[Mapping[str, Teachers]] = {
    "features": Teachers("a run, a released file, or a Hugging Face folder of a video or image model", _features),
    "pseudo_labels": Teachers("a fine-tuned run, or a classifier's file or folder", _classifier),
    "tokens": Teachers("the encoder of DALL-E's discrete VAE", _tokenizer),
}
"""The teachers of each kind of target that asks one."""


def _words(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
