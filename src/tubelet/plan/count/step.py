"""The training step of a recipe without its numbers: the method on the meta device, and what a batch of it holds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from dataclasses import replace as with_changes
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tubelet.masks import draw_mask
from tubelet.methods.classifier import Finetuning
from tubelet.models.base import Encoder
from tubelet.models.encoders import blocks_of
from tubelet.nn.mixing import NO_MIXING, Mixing, soft_labels
from tubelet.recipe import EncoderRun, FinetuneRecipe, PretrainRecipe
from tubelet.rng import generator
from tubelet.spec import replace
from tubelet.targets.unions import Target
from tubelet.types import Batch, Clips, ClipShape, Cube, Grid, Split
from tubelet.weights.teachers import planned_target

Recipe = EncoderRun

COLOURS: Final = 3
META: Final = torch.device("meta")
UNKNOWN_CLASSES: Final = 400
"""Classes of a fine-tuning recipe that leaves them to its labels: as Kinetics-400. They hardly matter."""
EMBEDDING, ENCODER, DECODER, HEAD = "patch embedding", "encoder", "decoder", "head and loss"
"""Parts of a step, in the order of forward."""


@dataclass(frozen=True)
class TargetShape:
    """What a masked model predicts of a clip: `wanted` tokens, each of which stands for a cube."""

    target: Target
    clip: ClipShape
    cube: Cube
    wanted: int

    def peak_bytes(self, clips: int, *, on_cpu: bool) -> int:
        """Bytes that are there at once while targets of so many clips are made, the targets among them."""
        rows = clips * self.wanted
        return self.target.peak_bytes(self.clip, self.cube, rows=rows, clips=clips, on_cpu=on_cpu)


@dataclass(frozen=True)
class StepShape:
    """Sizes of a step for one clip. In fine-tuning `wanted` is 0 and `target` None.

    Tokens of `grid` are embedded, those of `out_grid` come out of the encoder, which gets `seen` of them. The head
    gives `outputs` numbers for each of the `wanted` tokens, or for the clip. `can_recompute`: the encoder's blocks.
    """

    grid: Grid
    out_grid: Grid
    seen: int
    wanted: int
    outputs: int
    clip_bytes: int
    has_decoder: bool
    can_recompute: bool
    target: TargetShape | None = None


@dataclass(frozen=True, eq=False)
class PlannedStep:
    """A recipe's method on the meta device. `model` is what has `encoder` and head; `split` is the mask of one clip.

    `rows` are what `method` takes for its target.
    """

    recipe: Recipe
    method: nn.Module
    model: nn.Module
    target: Target | None
    split: Split | None
    rows: RowsWithoutNumbers | None = None
    _variants: dict[str, PlannedStep] = field(default_factory=dict)

    @property
    def encoder(self) -> Encoder:
        encoder = self.model.get_submodule(ENCODER)
        assert isinstance(encoder, Encoder)
        return encoder

    @property
    def head(self) -> nn.Linear:
        """The last linear map behind the encoder."""
        maps = [one for name, one in self.model.named_modules() if not name.startswith("encoder")]
        return [one for one in maps if isinstance(one, nn.Linear)][-1]

    @property
    def decoder(self) -> nn.Module | None:
        return dict(self.model.named_children()).get(DECODER)

    def parameters(self) -> dict[str, int]:
        """Parameters of the parts, and in total."""
        children = {name: _count(child) for name, child in self.model.named_children()}
        if self.split is None:  # of a classifier all that is no encoder is its head
            children = {ENCODER: children[ENCODER], "head": sum(children.values()) - children[ENCODER]}
        return {**children, "total": _count(self.model)}

    def blocks(self) -> list[nn.Module]:
        """Blocks of encoder and decoder: gathered, compiled and recomputed one by one."""
        return blocks_of(self.model)

    def shape(self) -> StepShape:
        clip, split, encoder = self.recipe.clip, self.split, self.encoder
        wanted = 0 if split is None else split.wanted.shape[1]
        target = None if self.target is None else TargetShape(self.target, clip, encoder.spec.cube, wanted)
        return StepShape(
            grid=encoder.grid,
            out_grid=encoder.out_grid,
            seen=encoder.grid.tokens if split is None or self.decoder is None else split.seen.shape[1],
            wanted=wanted,
            outputs=self.head.out_features,
            clip_bytes=COLOURS * clip.frames * clip.size**2,
            has_decoder=self.decoder is not None,
            can_recompute=ENCODER in dict(_specs(self.recipe)),
            target=target,
        )

    def batch(self, clips: int, device: torch.device) -> Batch:
        """A batch of so many clips, numbers undefined."""

        def empty(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(clips, *shape, dtype=dtype, device=device)

        frames, size = self.recipe.clip.frames, self.recipe.clip.size
        video = empty(COLOURS, frames, size, size, dtype=torch.uint8)
        index = empty(dtype=torch.int64)
        if self.split is None:
            assert isinstance(self.recipe, FinetuneRecipe)
            labels = self.recipe.task.made_up(0, clips=clips, outputs=self.head.out_features)
            return Batch({"video": Clips(video, index)}, labels=labels.to(device))
        split = Split(*(empty(*one.shape[1:], dtype=one.dtype) for one in self.split.tensors()))
        return Batch({"video": Clips(video, index)}, {"video": split})

    def recomputing(self, **which: bool | int) -> PlannedStep:
        """The step with other `checkpointing` of these parts (encoder, decoder); itself where that changes nothing."""
        changed = {
            name: replace(spec, checkpointing=which[name])
            for name, spec in _specs(self.recipe)
            if name in which and spec.checkpointing != which[name]
        }
        if not changed:
            return self
        name = repr(changed)
        if name not in self._variants:
            recipe: Any = replace(self.recipe, model=replace(self.recipe.model, **changed))
            self._variants[name] = plan_step(recipe, self.target)
        return self._variants[name]

    def copy(self) -> PlannedStep:
        """With a method of its own."""
        return copy.deepcopy(with_changes(self, _variants={}))

    def recomputes(self) -> bool:
        """Whether blocks are computed twice."""
        return any(bool(spec.checkpointing) for _, spec in _specs(self.recipe))


def plan_step(recipe: Recipe, target: Target | None = None) -> PlannedStep:
    """The step of a recipe; ValueError where cube, clip and mask do not fit.

    Counts of tokens are those of one mask drawn from the rules. `target` is that of the recipe where somebody has it
    already; without it the file of a teacher is read.
    """
    with META:
        return _KINDS[recipe.kind](recipe, target)


def _masked(recipe: PretrainRecipe, target: Target | None) -> PlannedStep:
    if target is None:
        target = planned_target(recipe)
    grid = recipe.clip.grid(recipe.model.encoder.cube)
    with torch.device("cpu"):
        split = draw_mask(recipe, grid, generator(recipe.seed)).split()
    method = recipe.model.build(recipe.clip, target)
    rows = RowsWithoutNumbers(recipe, target, split)
    method.target = cast(Target, rows)
    return PlannedStep(recipe, method, method, target, split, rows)


def _classifier(recipe: FinetuneRecipe, target: Target | None) -> PlannedStep:
    del target
    classifier = recipe.model.build(recipe.clip, recipe.outputs or UNKNOWN_CLASSES)
    mixing = AlwaysMixup() if recipe.mixing.mixup > 0 else NO_MIXING
    return PlannedStep(recipe, Finetuning(classifier, mixing, recipe.task), classifier, None, None)


_KINDS: Final[dict[str, Callable[[Any, Target | None], PlannedStep]]] = {"pretrain": _masked, "finetune": _classifier}


class AlwaysMixup(Mixing):
    """Mixup of every batch, in equal shares: what of all mixing takes most memory, and no draw."""

    def __call__(self, video: Tensor, labels: Tensor, *, classes: int) -> tuple[Tensor, Tensor]:
        values = video.float()
        soft = soft_labels(labels, classes, smoothing=self.smoothing)
        return torch.lerp(values.flip(0), values, 0.5), torch.lerp(soft.flip(0), soft, 0.5)


class RowsWithoutNumbers:
    """A target whose rows have the shapes of the real ones, but are not made: their own memory is `peak_bytes`.

    `on_rows` is called whenever they are asked for.
    """

    def __init__(self, recipe: PretrainRecipe, target: Target, split: Split) -> None:
        clip, cube = recipe.clip, recipe.model.encoder.cube
        video = torch.empty(1, COLOURS, clip.frames, clip.size, clip.size, dtype=torch.uint8, device=META)
        self._rows = target.rows(video, split.wanted.to(META), cube)
        self._target, self.kind = target, target.kind
        self.width, self.peak_bytes, self.score = target.width, target.peak_bytes, target.score
        self.on_rows: Callable[[], None] = lambda: None

    def rows(self, video: Tensor, wanted: Tensor, cube: Cube) -> Any:
        del wanted, cube
        self.on_rows()
        return tree_map(lambda one: one.new_empty(len(video), *one.shape[1:], device=video.device), self._rows)


def _specs(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Parts of the model whose blocks can be recomputed, by their names."""
    for name in type(recipe.model).model_fields:
        spec: Any = getattr(recipe.model, name)
        if name in (ENCODER, DECODER) and "checkpointing" in type(spec).model_fields:
            yield name, spec


def _count(module: nn.Module) -> int:
    return sum(math.prod(value.shape) for value in module.parameters())
