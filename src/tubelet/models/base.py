"""What an encoder is: a spec (plain data, held by a recipe) and the module that it builds.

Methods, training, weights and plans ask these two classes and know no kind of encoder. A new one subclasses both in a
file of its own and stands in one line of `ENCODERS` (`tubelet.models.encoders`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn

from tubelet.disk.tensors import State
from tubelet.spec import Spec
from tubelet.types import ClipShape, Cube, Grid


class Grids(NamedTuple):
    """Tokens behind the embedding, and tokens that come out: the same grid where an encoder does not pool."""

    embedded: Grid
    out: Grid


class Stretched(NamedTuple):
    """An encoder's spec and tensors for clips of a different size.

    `note` is a line for the user, such as "positions learnt for A are interpolated to B"; empty where no table changed.
    """

    spec: EncoderSpec
    state: State
    note: str


class EncoderSpec(Spec, ABC):
    """Size and options of an encoder: `width` of a token and `heads` of the first block, `depth` blocks in all."""

    kind: str
    width: int
    depth: int
    heads: int

    @property
    @abstractmethod
    def cube(self) -> Cube:
        """Frames and pixels that a token of the output stands for, where all strides divide the clip."""

    @property
    @abstractmethod
    def out_width(self) -> int:
        """Numbers of a token of the output."""

    @property
    @abstractmethod
    def out_heads(self) -> int:
        """Heads of the last attention; they divide `out_width`."""

    @property
    @abstractmethod
    def has_class_token(self) -> bool:
        """Whether a token that is no cube of the clip goes through the blocks, for a classifier to read."""

    @property
    @abstractmethod
    def can_drop(self) -> bool:
        """Whether it can leave tokens out (`seen`), as a masked autoencoder does with hidden ones."""

    @property
    def position_kind(self) -> str:
        """In words: fixed or learnt."""
        return "learnt"

    @property
    def trained_clip(self) -> ClipShape | None:
        """The clip that fixed positions were trained for, where it may differ from the model's; None: the model's."""
        return None

    @property
    def trained_grid(self) -> Grid | None:
        """Token grid that fixed positions are stretched from, here and in a decoder behind; None: the model's own."""
        return None

    def facts(self) -> dict[str, Any]:
        """What `tubelet weights inspect` says of it, as plain JSON."""
        return {"width": self.out_width, "depth": self.depth, "heads": self.out_heads}

    @abstractmethod
    def grids(self, clip: ClipShape) -> Grids:
        """Token grids for clips of this size; ValueError where the embedding does not divide the clip."""

    @abstractmethod
    def assemble(self, clip: ClipShape, *, final_norm: bool, masked: bool = False) -> Encoder:
        """The module, its weights as its layers draw them: for whoever puts other ones in, such as a checkpoint.

        `final_norm`: the tokens go through a norm at the end. `masked`: there is a mask token, for `hidden`.
        ValueError where spec and clip do not fit.
        """

    def build(self, clip: ClipShape, *, final_norm: bool, masked: bool = False) -> Encoder:
        """The same with the first weights that its authors train from, drawn from torch's default generator."""
        encoder = self.assemble(clip, final_norm=final_norm, masked=masked)
        encoder.apply(encoder.init_linear)
        return encoder

    @classmethod
    @abstractmethod
    def tiny(cls) -> EncoderSpec:
        """A small one of this kind, for tests and tries: it takes clips of 4 frames of 32 x 32, and multiples."""

    @abstractmethod
    def stretched(self, state: State, before: ClipShape | None, after: ClipShape) -> Stretched:
        """This encoder for clips of the size `after`, with weights that were trained with `before` (None: not known).

        `state` holds the encoder's tensors by their names in it; it is not changed. Tables that do not fit `before`
        are left as they are, for a strict check to name.
        """


class Encoder(nn.Module, ABC):
    """A network that makes tokens of a video.

    Attributes: `spec`; `clip`, the size of clips that it takes; `grid`, tokens behind the embedding; `out_grid`, tokens
    that come out, `out_width` wide; `out_heads` of the last attention; `layers`, the layer of what follows it, such as
    a head; `norm`, the final norm (`nn.Identity` without). Names that others rely on: `patch_embed.weight` (a file with
    it is one of ours), `mask_token`, `norm`.
    """

    spec: EncoderSpec
    clip: ClipShape
    grid: Grid
    out_grid: Grid
    out_width: int
    out_heads: int
    layers: int
    norm: nn.Module

    @abstractmethod
    def forward(
        self,
        video: Num[Tensor, "B C T H W"],
        seen: Int[Tensor, "B V"] | None = None,
        *,
        hidden: Bool[Tensor, "B t h w"] | None = None,
    ) -> Float[Tensor, "B _ D"]:
        """Tokens in raster order, without a class token; `video` is uint8, or float in the same range 0..255.

        `seen` (where `spec.can_drop`) are the tokens of `out_grid` to make, no other is computed. With `hidden` (where
        it was built `masked`) the mask token is in the place of each that is True, and all come out. ValueError where
        video or mask have sizes that do not fit.
        """

    def tokens_and_class(
        self, video: Num[Tensor, "B C T H W"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"] | None]:
        """All tokens in raster order, and the class token where there is one."""
        tokens: Tensor = self(video)
        return tokens, None

    @abstractmethod
    def layer_of(self, name: str) -> int:
        """Layer of a parameter by its name in the encoder, for layer decay.

        0 embeds; blocks rise from 1, counted through all stages, with what is between stages (`swin` merges tokens
        there) as a layer too; `layers`, where a head belongs, is what follows them.
        """

    def not_decayed(self) -> set[str]:
        """Names of parameters that weight decay leaves alone in fine-tuning, beside vectors and biases."""
        return set()

    @abstractmethod
    def stack(self) -> tuple[nn.Module, ...]:
        """Its blocks in order: gathered from other ranks, compiled and recomputed one by one."""

    @staticmethod
    @abstractmethod
    def init_linear(layer: nn.Module) -> None:
        """First weights of a layer as its authors draw them, for `apply`, and for a linear map on its tokens."""

    def check(self, video: Num[Tensor, "B C T H W"]) -> None:
        """ValueError where a clip has a different size than the model takes."""
        wanted = (self.clip.frames, self.clip.size, self.clip.size)
        if tuple(video.shape[2:]) != wanted:
            raise ValueError(f"the model takes clips of [T,H,W] {wanted}, got {tuple(video.shape[2:])}")


def layer_in_stack(name: str, depth: int) -> int:
    """`layer_of` for an encoder of `depth` blocks called `blocks.{i}` with `norm` behind them."""
    part, _, rest = name.partition(".")
    if part == "blocks":
        return int(rest.partition(".")[0]) + 1
    return depth + 1 if part == "norm" else 0
