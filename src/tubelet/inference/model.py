"""A trained model in somebody's hands: tokens, vectors, classes, reconstructions of clips, in a line each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from tubelet.disk.integrity import tensor_bytes
from tubelet.inference.pooling import POOLINGS, PoolingName
from tubelet.methods.classifier import Classifier
from tubelet.methods.masked import MaskedMethod
from tubelet.models.encoders import Encoder
from tubelet.pictures.reconstruct import Reconstruction, mask_of, reconstruct_clip
from tubelet.recipe import PretrainRecipe, Run
from tubelet.train.distributed.device import autocast, pick_device, pick_precision
from tubelet.types import ClipShape, Mask
from tubelet.video.sample import Sampler
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.read import Hints, read_model
from tubelet.weights.tensors.rename import name_then

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "bf16", "fp32"]


class Encoded(NamedTuple):
    """Tokens in raster order (t, h, w), and one vector per clip; float32, on the model's device."""

    tokens: Float[Tensor, "B N D"]
    pooled: Float[Tensor, "B width"]


@dataclass(frozen=True)
class Scores:
    """Logits of a classifier, float32, and the names of its classes in the same order."""

    logits: Float[Tensor, "B C"]
    names: tuple[str, ...]

    @property
    def probabilities(self) -> Float[Tensor, "B C"]:
        """Softmax of the logits."""
        return self.logits.softmax(1)

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """The k likeliest classes of each clip, likeliest first, with their probabilities."""
        best = self.probabilities.topk(min(k, len(self.names)), dim=1)
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [[(self.names[i], p) for i, p in zip(places, values, strict=True)] for places, values in rows]


class Model:
    """What `tubelet.load` gives. `classifier` or `autoencoder` is there where the checkpoint holds one.

    A masked predictor stands as `autoencoder`, too.

    Clips are uint8 (or float in 0..255) [B,3,T,H,W] of the size `clip`, or one clip [3,T,H,W], which is a batch of one.
    A batch is computed in one pass: its size is the caller's choice, and so is the memory it takes.
    """

    def __init__(
        self, found: Checkpoint, *, device: torch.device, precision: torch.dtype, pooling: PoolingName = "mean"
    ) -> None:
        self.file, self.recipe, self.notes = found.file, found.recipe, found.notes
        self.device, self.precision, self.pooling = device, precision, pooling
        self.fingerprint = fingerprint(found, pooling)
        built = found.build().to(device)
        self.classifier = built if isinstance(built, Classifier) else None
        self.autoencoder = built if isinstance(built, MaskedMethod) else None
        self.encoder = cast(Encoder, built.get_submodule("" if found.part == "encoder" else "encoder"))
        self.names = None if self.classifier is None else found.class_names
        if precision is torch.bfloat16:
            _round_products(self.classifier or self.autoencoder or self.encoder)

    @property
    def clip(self) -> ClipShape:
        """Frames and size of the clips that the model takes."""
        return self.encoder.clip

    @property
    def width(self) -> int:
        """Length D of a token."""
        return self.encoder.out_width

    @property
    def vector_width(self) -> int:
        """Length of a clip's vector."""
        grid = self.encoder.out_grid
        return self.width if self.pooling == "mean" else (grid.t - 1) * grid.h * grid.w

    @property
    def sampler(self) -> Sampler:
        """How the model's training took frames from a video."""
        return self.recipe.data.sampler

    def encode(self, clips: Num[Tensor, "*B C T H W"]) -> Encoded:
        """Tokens and one vector per clip.

        With the pooling "mean" the vector is what a classifier's head reads: the mean of the tokens through `fc_norm`
        (or token 0). Of a model without a head it is the mean of the tokens, which have gone through the encoder's
        final norm. `tubelet.inference.pooling` has the other one.
        """
        with self._computing():
            batch = self._batch(clips)
            if self.classifier is None:
                tokens = self.encoder(batch)
                read = tokens.mean(1)
            else:
                tokens, read = self.classifier.tokens_and_features(batch)
            pooled = POOLINGS[self.pooling](tokens, self.encoder.out_grid, read)
            return Encoded(tokens.float(), pooled.float())

    def pool(self, clips: Num[Tensor, "*B C T H W"]) -> Float[Tensor, "B width"]:
        """The vectors of `encode` alone."""
        return self.encode(clips).pooled

    def classify(self, clips: Num[Tensor, "*B C T H W"]) -> Scores:
        """Scores of the classes. ValueError where the checkpoint has none."""
        if self.classifier is None or self.names is None:
            raise ValueError(f"{self.file}: the model has no classes; fine-tune it first (tubelet finetune --start)")
        with self._computing():
            return Scores(self.classifier(self._batch(clips)).float(), self.names)

    def reconstruct(
        self, clip: Num[Tensor, "*B C T H W"], *, seed: int = 0, mask: Mask | None = None, true_statistics: bool = False
    ) -> Reconstruction:
        """Hide cubes of one clip, predict them, and paint all three: original, what was seen, what was filled in.

        The mask is drawn by the recipe's rules and `seed` where not given. ValueError where there is no decoder.
        """
        if self.autoencoder is None or not isinstance(self.recipe, PretrainRecipe):
            raise ValueError(f"{self.file}: the model has no decoder; give the pre-trained model, not a classifier")
        batch = self._batch(clip)
        if len(batch) != 1:
            raise ValueError(f"reconstruct takes one clip, got {len(batch)}")
        with self._computing():
            drawn = mask or mask_of(self.recipe, self.autoencoder, batch, seed=seed)
            return reconstruct_clip(self.autoencoder, batch, drawn.to(self.device), true_statistics=true_statistics)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), autocast(self.device, self.precision):
            yield

    def _batch(self, clips: Tensor) -> Tensor:
        if clips.ndim not in (4, 5) or clips.shape[-4] != 3:
            raise ValueError(f"clips are [B,3,T,H,W] or one clip [3,T,H,W], got {tuple(clips.shape)}")
        batch = clips if clips.ndim == 5 else clips.unsqueeze(0)
        return batch.to(self.device, non_blocking=True)


def load(
    path: str | Path,
    *,
    frames: int | None = None,
    size: int | None = None,
    device: Device = "auto",
    precision: Precision | None = "fp32",
    pooling: PoolingName = "mean",
    hints: Hints | None = None,
) -> Model:
    """Load a trained model: a run of ours, a released VideoMAE or VideoMAE V2 file, a Hugging Face VideoMAE folder.

    `frames` and `size` ask for clips of another length or size than the model was trained with; its positions are then
    interpolated, and `notes` says so. `precision` "bf16" is quicker where the device is made for it ("auto" finds
    out); None is as its recipe says. `pooling` makes the vector of a clip: the "mean" of its tokens, or their "change"
    over time. `hints` are facts that some files lack, such as the number of heads. Nothing in a file is executed.
    ValueError in one line where the file is missing, damaged, or of another kind.
    """
    found = read_model(Path(path), hints or Hints())
    clip = found.recipe.clip
    found = found.resized(ClipShape(frames=frames or clip.frames, size=size or clip.size))
    run = Run(device=device, precision=precision or found.recipe.run.precision)
    place = pick_device(run)
    return Model(found, device=place, precision=pick_precision(run, place), pooling=pooling)


def fingerprint(found: Checkpoint, pooling: PoolingName = "mean") -> str:
    """SHA-256 of the tensors, of the model they are for and of the pooling: equal where two give equal vectors."""
    recipe = found.recipe
    specs = (spec.model_dump_json(exclude_defaults=True) for spec in (recipe.clip, recipe.model))  # new fields are none
    digest = hashlib.sha256("\n".join([*specs, pooling]).encode())
    named = {name_then(name): value for name, value in found.state.items()}  # as of folders made earlier
    for part in tensor_bytes(named):
        digest.update(part)
    return digest.hexdigest()


def _round_products(module: nn.Module) -> None:
    """Weights of linear maps to bf16 once, to which autocast would round them in every pass; norms stay float32."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.to(torch.bfloat16)
