"""A checkpoint of any origin, under our names, with the model that it is for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tubelet.disk.tensors import State
from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.methods.classifier import Classifier
from tubelet.methods.predictor import MaskedPredictor, MaskedPredictorSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.encoders import Encoder, encoder_for
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.rng import step_rng
from tubelet.spec import replace as changed
from tubelet.targets.frozen import FrozenSpec, without_network
from tubelet.targets.unions import Target
from tubelet.types import ClipShape
from tubelet.weights.tensors.strict import filled

ENCODER: Final = "encoder."
DECODER: Final = "decoder."
HEAD: Final = "head."
PREDICTION: Final = "prediction_head."
MASK_TOKEN: Final = "encoder.mask_token"


@dataclass(frozen=True)
class Imported:
    """Tensors under our names and the recipe of the model that they fill.

    `format` says in words what the file was. A pre-training recipe goes with a `MaskedAutoencoder` or a
    `MaskedPredictor`, a fine-tuning one with a `Classifier`; the file may hold less (an encoder without its decoder or
    head). `names` are those of the classes. `dropped` lists tensors of the file that are not used; `notes` are lines
    for the user: what was assumed, what was changed.
    """

    file: Path
    format: str
    state: State
    recipe: PretrainRecipe | FinetuneRecipe
    names: tuple[str, ...] | None = None
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def has_decoder(self) -> bool:
        return any(name.startswith(DECODER) for name in self.state)

    @property
    def decoder(self) -> DecoderSpec | None:
        """What its decoder is, where the file has one."""
        model = self.recipe.model
        return model.decoder if isinstance(model, MaskedAutoencoderSpec) and self.has_decoder else None

    @property
    def has_head(self) -> bool:
        return any(name.startswith(HEAD) for name in self.state)

    @property
    def predicts(self) -> bool:
        """Whether it is a masked predictor with its head."""
        is_one = isinstance(self.recipe.model, MaskedPredictorSpec)
        return is_one and any(name.startswith(PREDICTION) for name in self.state)

    @property
    def target(self) -> Target:
        """What it was trained to predict. A frozen network that gave it is not needed, and gives nothing now."""
        assert isinstance(self.recipe, PretrainRecipe)
        target = self.recipe.target
        if not isinstance(target, FrozenSpec):
            return target
        biases = [name for name in (f"{PREDICTION}bias", f"{DECODER}{HEAD}bias") if name in self.state]
        if not biases:
            raise ValueError(f"{self.file}: lacks the biases of its predictions: is it a part of a model only?")
        return without_network(target, width=len(self.state[biases[0]]), file=self.file)

    def resized(self, clip: ClipShape) -> Imported:
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

    def build_encoder(self) -> Encoder:
        """The encoder alone, with its final norm where the file has one; eval mode, on the CPU."""
        state = encoder_state(self.state)
        with step_rng(0, 0):  # the weights are replaced; the caller's random state stays as it was
            encoder = encoder_for(self.recipe.model.encoder, self.recipe.clip, state)
        return filled(encoder, state, self.file)

    def build_autoencoder(self) -> MaskedAutoencoder:
        """Encoder and decoder, in eval mode, on the CPU. ValueError where the file has no decoder."""
        if self.decoder is None:
            raise ValueError(f"{self.file}: no decoder in it ({self.format}); give a pre-trained model that has one")
        method = self._method()
        assert isinstance(method, MaskedAutoencoder)
        return method

    def build_predictor(self) -> MaskedPredictor:
        """Encoder and prediction head, in eval mode, on the CPU. ValueError where the file is no masked predictor."""
        if not self.predicts:
            raise ValueError(f"{self.file}: no masked predictor ({self.format}); give a pre-trained one")
        method = self._method()
        assert isinstance(method, MaskedPredictor)
        return method

    def _method(self) -> MaskedAutoencoder | MaskedPredictor:
        recipe = self.recipe
        assert isinstance(recipe, PretrainRecipe)
        with step_rng(0, 0):
            method = recipe.model.build(recipe.clip, self.target)
        return filled(method, self.state, self.file)

    def build_classifier(self) -> Classifier:
        """Encoder and head, in eval mode, on the CPU. ValueError where the file has no head."""
        recipe = self.with_classes()
        with step_rng(0, 0):
            classifier = recipe.model.build(recipe.clip, len(self.state["head.bias"]))
        return filled(classifier, self.state, self.file)

    def with_classes(self) -> FinetuneRecipe:
        """Its recipe. ValueError where it is no classifier with its head."""
        if not isinstance(self.recipe, FinetuneRecipe) or not self.has_head:
            raise ValueError(f"{self.file}: no classes in it ({self.format}); tubelet finetune --start makes them")
        return self.recipe


def encoder_state(state: State) -> State:
    """The tensors of the encoder by their names in it, without the mask token of pre-training."""
    return {
        name.removeprefix(ENCODER): tensor
        for name, tensor in state.items()
        if name.startswith(ENCODER) and name != MASK_TOKEN
    }
