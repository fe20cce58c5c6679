"""2-D Swin's weights as the first ones of a Video Swin: every frame is looked at as an image.

(arXiv:2106.13230, section 3.3; their `inflate_weights`.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from tubelet.disk.tensors import State
from tubelet.models.swin.model import TABLE, SwinSpec
from tubelet.nn.windows import Step
from tubelet.weights.swin.names import ENCODER, HUGGINGFACE, joined, with_frame_axis, without_fixed
from tubelet.weights.tensors.rename import from_official

Inflation = Literal["mean", "centre"]
"""The embedding's weight in each frame: that of the image divided by the frames, or all of it in the middle frame."""
_EMBEDDING = "patch_embed.weight"
_HEADS = r"head\..*|classifier\..*|decoder\..*|swin\.embeddings\.mask_token|embeddings\.mask_token"


def from_authors_2d(state: Mapping[str, Tensor], *, source: str = "checkpoint") -> State:
    """microsoft/Swin-Transformer's names to those of a `Swin`, shapes as they were; a classifier's head is left out."""
    return from_official(_without_heads(without_fixed(state)), ENCODER, source=source)


def from_huggingface_2d(state: Mapping[str, Tensor], *, source: str = "checkpoint") -> State:
    """The same of transformers' `SwinModel` and of models that have something on top of it."""
    kept = {name.removeprefix("swin."): value for name, value in _without_heads(without_fixed(state)).items()}
    return from_official(joined(kept), HUGGINGFACE, source=source)


def inflated(state: Mapping[str, Tensor], spec: SwinSpec, *, how: Inflation = "mean") -> State:
    """A 2-D Swin's tensors, by our names, as those of a `Swin` of this spec.

    Biases of a distance in space are the same for each distance in time, so a clip of one still image gives the
    features of the image in every frame. Tables are first stretched to windows of other sides, bicubically.
    """
    out = dict(state)
    out[_EMBEDDING] = _over_frames(state[_EMBEDDING], spec.tubelet, how)
    for name, table in state.items():
        if name.endswith(TABLE):
            out[name] = _over_time(table, spec.window)
    return out


def image_embedding(state: Mapping[str, Tensor]) -> State:
    """The embedding of images from the same tensors, by the names of a `PatchEmbed` with a cube of one frame."""
    own = {name.removeprefix("patch_embed."): value for name, value in state.items() if name.startswith("patch_embed.")}
    return with_frame_axis(own)


def _without_heads(state: Mapping[str, Tensor]) -> State:
    return {name: value for name, value in state.items() if not re.fullmatch(_HEADS, name)}


def _over_frames(weight: Float[Tensor, "D C p q"], frames: int, how: Inflation) -> Float[Tensor, "D C f p q"]:
    if how == "mean":
        return weight.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames
    cube = torch.zeros(*weight.shape[:2], frames, *weight.shape[2:], dtype=weight.dtype)
    cube[:, :, frames // 2] = weight
    return cube


def _over_time(table: Float[Tensor, "R heads"], window: Step) -> Float[Tensor, "M heads"]:
    """ValueError where the table is not that of a square window."""
    side = math.isqrt(len(table))
    if side * side != len(table) or not side % 2:
        raise ValueError(f"a table of {len(table)} relative positions is not that of a square window")
    wanted = (2 * window[1] - 1, 2 * window[2] - 1)
    if wanted != (side, side):
        plane = table.T.unflatten(1, (side, side)).unsqueeze(0).double()
        stretched = F.interpolate(plane, size=wanted, mode="bicubic", align_corners=False)
        table = stretched[0].flatten(1).T.to(table.dtype)
    return table.repeat(2 * window[0] - 1, 1)
