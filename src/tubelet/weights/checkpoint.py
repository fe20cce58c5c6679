"""A checkpoint of any origin: its tensors under our names, the recipe of its model, and the module that they fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, TypeVar

import torch
from torch import nn

from tubelet.data.class_names import Names
from tubelet.disk.tensors import State
from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.methods.classifier import Classifier
from tubelet.methods.predictor import MaskedPredictor
from tubelet.models.decoder import DecoderSpec
from tubelet.models.encoders import Encoder, encoder_for
from tubelet.recipe import EncoderRun, FinetuneRecipe, PretrainRecipe
from tubelet.rng import step_rng
from tubelet.spec import replace as changed
from tubelet.targets.unions import Target, trained_target
from tubelet.types import ClipShape
from tubelet.weights.tensors.given import Given, Hints
from tubelet.weights.tensors.strict import check_fit, filled

ENCODER: Final = "encoder."
POSITIONS: Final = "encoder.pos_embed"
MASK_TOKEN: Final = "encoder.mask_token"
ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """Tensors under our names and the recipe of the model that they fill.

    `format` says in words what the file was. `names` are those of the classes. `dropped` lists tensors of the file that
    are not used; `notes` are lines for the user: what was assumed, what was changed. `part` says which model the
    tensors fill: a key of `PARTS`.
    """

    file: Path
    format: str
    state: State
    recipe: EncoderRun
    names: Names | None = None
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    usual: ClassVar[None] = None

    @property
    def part(self) -> str:
        """The kind of its recipe's model where it has that whole, else "encoder"."""
        kind = self.recipe.model.kind
        return kind if any(name.startswith(PARTS[kind].mark) for name in self.state) else "encoder"

    @property
    def has_decoder(self) -> bool:
        return self.part == "masked_autoencoder"

    @property
    def has_head(self) -> bool:
        return self.part == "classifier"

    @property
    def predicts(self) -> bool:
        return self.part == "masked_predictor"

    @property
    def decoder(self) -> DecoderSpec | None:
        """What its decoder is, where the file has one."""
        model = self.recipe.model
        return model.decoder if isinstance(model, MaskedAutoencoderSpec) and self.has_decoder else None

    @property
    def classes(self) -> int:
        """Outputs of its head. ValueError where it has none, or a part of one."""
        self.with_classes()
        bias = self.state.get("head.bias")
        if bias is None:
            raise ValueError(f"{self.file}: has head.weight but lacks head.bias: is it a part of a model only?")
        return len(bias)

    @property
    def class_names(self) -> Names:
        """Names of its classes; their numbers where they have none."""
        return self.names or tuple(str(label) for label in range(self.classes))

    @property
    def target(self) -> Target:
        """What it was trained to predict. A frozen network that gave it is not needed, and gives nothing now."""
        assert isinstance(self.recipe, PretrainRecipe)
        cube = self.recipe.model.encoder.cube
        return trained_target(self.recipe.target, self._predicted_width, cube=cube, file=self.file)

    def _predicted_width(self) -> int:
        """Numbers that it predicts for a token."""
        biases = [name for name in ("prediction_head.bias", "decoder.head.bias") if name in self.state]
        if not biases:
            raise ValueError(f"{self.file}: lacks the biases of its predictions: is it a part of a model only?")
        return len(self.state[biases[0]])

    @property
    def trained_clip(self) -> ClipShape:
        """The clip that its positions were trained for."""
        return self.recipe.model.encoder.trained_clip or self.recipe.clip

    def described(self, hints: Hints) -> Checkpoint:
        """The same with the class names of `hints`. ValueError where its recipe says something else than they do."""
        known: dict[str, tuple[int | None, int]] = {
            "heads": (hints.heads, self.recipe.model.encoder.heads),
            "frames it was trained with": (hints.frames, self.recipe.clip.frames),
            "size it was trained with": (hints.size, self.recipe.clip.size),
        }
        if isinstance(self.recipe.model, MaskedAutoencoderSpec):
            known["decoder heads"] = (hints.decoder_heads, self.recipe.model.decoder.heads)
        for what, (hint, stated) in known.items():
            if hint not in (None, stated):
                raise ValueError(f"{self.file}: {what}: its recipe says {stated}, not {hint}; leave the hint out")
        names = hints.names or (self.names if "head.bias" in self.state else None)
        bias = self.state.get("head.bias")
        if names is not None and bias is None:
            raise ValueError(f"{self.file}: has no classes to be named ({self.format})")
        if names is not None and bias is not None and len(bias) != len(names):
            raise ValueError(f"{self.file}: has {len(bias)} classes, but {len(names)} names are given")
        return replace(self, names=names)

    def resized(self, clip: ClipShape) -> Checkpoint:
        """The same weights for clips of another length or size: positions are stretched, and a note says so.

        ValueError where the cube does not divide the clip.
        """
        recipe = self.recipe
        encoder = recipe.model.encoder
        if clip == recipe.clip:
            return self
        encoder, bare, note = encoder.stretched(encoder_state(self.state), recipe.clip, clip)
        state = {**self.state, **{ENCODER + name: tensor for name, tensor in bare.items()}}
        model, notes = changed(recipe.model, encoder=encoder), (*self.notes, *filter(None, [note]))
        return replace(self, state=state, recipe=changed(recipe, clip=clip, model=model), notes=notes)

    def build(self) -> nn.Module:
        """The module of its part with these weights, in eval mode, on the CPU. ValueError as in `check_fit`."""
        return self._built(self.part)

    def build_encoder(self) -> Encoder:
        """The encoder alone, with its final norm where the file has one."""
        encoder: Encoder = self._built("encoder")  # type: ignore[assignment]  # what PARTS builds
        return encoder

    def build_autoencoder(self) -> MaskedAutoencoder:
        """Encoder and decoder. ValueError where the file has no decoder."""
        return self._built_as("masked_autoencoder", MaskedAutoencoder)

    def build_predictor(self) -> MaskedPredictor:
        """Encoder and prediction head. ValueError where the file is no masked predictor."""
        return self._built_as("masked_predictor", MaskedPredictor)

    def build_classifier(self) -> Classifier:
        """Encoder and head. ValueError where the file has no head."""
        return self._built_as("classifier", Classifier)

    def with_classes(self) -> FinetuneRecipe:
        """Its recipe. ValueError where it is no classifier with its head."""
        self.check_is("classifier")
        assert isinstance(self.recipe, FinetuneRecipe)
        return self.recipe

    def check_is(self, part: str) -> None:
        """ValueError where it is a different part."""
        if self.part != part:
            raise ValueError(f"{self.file}: {PARTS[part].absent.format(self.format)}")

    def check(self) -> None:
        """ValueError where tensors do not fill the module of its part, all of them and no others. Takes no memory."""
        part = PARTS[self.part]
        with step_rng(0, 0), torch.device("meta"):
            module = part.build(self)
        check_fit(part.tensors(self.state), module.state_dict(), self.file)

    def _built_as(self, part: str, kind: type[ModuleT]) -> ModuleT:
        self.check_is(part)
        module = self._built(part)
        assert isinstance(module, kind)
        return module

    def _built(self, name: str) -> nn.Module:
        part = PARTS[name]
        with step_rng(0, 0):  # the weights are replaced; the caller's random state stays as it was
            module = part.build(self)
        return filled(module, part.tensors(self.state), self.file)


@dataclass(frozen=True)
class ModelPart:
    """A model that a checkpoint may hold: `mark` begins the names that only it has, `build` makes it without weights.

    `tensors` picks those that it takes; `absent` is the error, with a place for the format, where a file has no such
    part.
    """

    mark: str
    build: Callable[[Checkpoint], nn.Module]
    absent: str
    tensors: Callable[[State], State] = dict


def encoder_state(state: State) -> State:
    """The tensors of the encoder by their names in it, without the mask token of pre-training."""
    return {
        name.removeprefix(ENCODER): tensor
        for name, tensor in state.items()
        if name.startswith(ENCODER) and name != MASK_TOKEN
    }


def _encoder(found: Checkpoint) -> nn.Module:
    return encoder_for(found.recipe.model.encoder, found.recipe.clip, encoder_state(found.state))


def _classifier(found: Checkpoint) -> nn.Module:
    return found.with_classes().model.build(found.recipe.clip, found.classes)


def _masked(found: Checkpoint) -> nn.Module:
    assert isinstance(found.recipe, PretrainRecipe)
    return found.recipe.model.build(found.recipe.clip, found.target)


PARTS: Final[dict[str, ModelPart]] = {
    "classifier": ModelPart("head.", _classifier, "no classes in it ({}); tubelet finetune --start makes them"),
    "masked_autoencoder": ModelPart(
        "decoder.", _masked, "no decoder in it ({}); give a pre-trained model that has one"
    ),
    "masked_predictor": ModelPart("prediction_head.", _masked, "no masked predictor ({}); give a pre-trained one"),
    "encoder": ModelPart(ENCODER, _encoder, "no encoder in it ({})", encoder_state),
}
"""Every model that a checkpoint may hold, by the kind of its recipe's model; an encoder alone goes with any recipe."""


Describe = Callable[[State, Given, list[str]], EncoderRun]
TrainedClip = Callable[[State, Given], ClipShape | None]


@dataclass(frozen=True)
class Undescribed:
    """Tensors under our names from a file that has no recipe: what a training run may start from as they are.

    `describe` finds the recipe from the shapes and from what is `given` besides, and adds what it assumed to the notes;
    `clip_of` finds the clip alone, None where nothing tells. `usual` is the clip to assume then, where there is one.
    """

    file: Path
    format: str
    state: State
    describe: Describe
    clip_of: TrainedClip
    given: Given
    usual: ClipShape | None = None
    names: Names | None = None
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def trained_clip(self) -> ClipShape | None:
        return self.clip_of(self.state, self.given)

    def described(self, hints: Hints) -> Checkpoint:
        """With the recipe of its model. ValueError where shapes and `hints` are not enough, or do not go together."""
        notes = list(self.notes)
        recipe = self.describe(self.state, replace(self.given, hints=hints), notes)
        found = Checkpoint(self.file, self.format, self.state, recipe, self.names, self.dropped, tuple(notes))
        return found.described(Hints(names=hints.names))


Weights = Checkpoint | Undescribed
"""What every format gives, and what a run may start from."""
