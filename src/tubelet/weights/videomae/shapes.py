"""The model that a checkpoint is of, read from the shapes of its tensors (under our names).

Shapes tell everything but the number of heads, and the clip where positions are fixed: these come from hints, from
options saved in the file, or from the published sizes, and then a note says what was assumed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from torch import Tensor

from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.block import mlp_ratio
from tubelet.spec import explain
from tubelet.types import ClipShape, Cube
from tubelet.weights.tensors.given import Given

ENCODER_HEADS: Final = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}
DECODER_HEADS: Final = {192: 3, 384: 6, 512: 8, 640: 8}
"""Heads of the published models by width: ViT-Ti, S, B, L, H, g, G, and their decoders."""
USUAL: Final = ClipShape(frames=16, size=224)
"""The clip of every published model."""
LAYER_SCALE: Final = 0.1
"""First value of branch scales where a file has some: only a model that is trained anew sees it."""


def encoder_spec(state: Mapping[str, Tensor], given: Given, notes: list[str]) -> ViTSpec:
    """Of the tensors named `encoder.*`; what was assumed is added to `notes`.

    ValueError where they make no VideoMAE encoder, or the heads are not known.
    """
    width, cube = _cube_of(state, given.file)
    hidden = _size(state, "encoder.blocks.0.mlp.fc1.weight", 0, given.file)
    heads = _Heads("encoder.", "heads", "--heads", given.hints.heads, ENCODER_HEADS)
    try:
        return ViTSpec(
            width=width,
            depth=_depth(state, "encoder.", given.file),
            heads=_heads(state, width, heads, given, notes),
            mlp_ratio=mlp_ratio(width, hidden),
            patch=cube.height,
            tubelet=cube.frames,
            layer_scale=LAYER_SCALE if "encoder.blocks.0.scale1" in state else None,
            learnable_positions="encoder.pos_embed" in state,
            cosine_attention="encoder.blocks.0.attention.scale" in state,
        )
    except ValidationError as error:
        raise ValueError(f"{given.file}: {explain(error, ViTSpec)}") from error


def decoder_spec(state: Mapping[str, Tensor], given: Given, notes: list[str]) -> DecoderSpec:
    """Of the tensors named `decoder.*`; like `encoder_spec`.

    ValueError, too, where it predicts another number of values per token than a cube has pixels.
    """
    width = _size(state, "decoder.encoder_to_decoder.weight", 0, given.file)
    hidden = _size(state, "decoder.blocks.0.mlp.fc1.weight", 0, given.file)
    _, cube = _cube_of(state, given.file)
    predicted, pixels = _size(state, "decoder.head.weight", 0, given.file), 3 * math.prod(cube)
    if predicted != pixels:
        raise ValueError(
            f"{given.file}: the decoder predicts {predicted} numbers per token, but a cube of {tuple(cube)} has "
            f"{pixels} pixel values: it was trained on another target than pixels; give the run with its recipe"
        )
    heads = _Heads("decoder.", "decoder heads", "--decoder-heads", given.hints.decoder_heads, DECODER_HEADS)
    try:
        return DecoderSpec(
            width=width,
            depth=_depth(state, "decoder.", given.file),
            heads=_heads(state, width, heads, given, notes),
            mlp_ratio=mlp_ratio(width, hidden),
            layer_scale=LAYER_SCALE if "decoder.blocks.0.scale1" in state else None,
            cosine_attention="decoder.blocks.0.attention.scale" in state,
        )
    except ValidationError as error:
        raise ValueError(f"{given.file}: {explain(error, DecoderSpec)}") from error


def trained_clip(state: Mapping[str, Tensor], given: Given, notes: list[str]) -> ClipShape:
    """Frames and size that the positions are for: hints, else saved options, else the table's length, else usual.

    What was assumed is added to `notes`. ValueError where these do not agree with each other or with the cube.
    """
    _, cube = _cube_of(state, given.file)
    frames = given.hints.frames or given.options.frames
    size = given.hints.size or given.options.size
    tokens = table_tokens(state, given)
    clip = _usual(frames, size, notes) if tokens is None else _of_tokens(tokens, cube, frames, size, given, notes)
    try:
        grid = clip.grid(cube)
    except ValueError as error:
        raise ValueError(f"{given.file}: {error}; give --trained-frames and --trained-size") from error
    if tokens not in (None, grid.tokens):
        raise ValueError(
            f"{given.file}: its position table has {tokens} rows, but a clip of {clip.frames} frames of {clip.size} x "
            f"{clip.size} has {grid.tokens} tokens; give --trained-frames and --trained-size as they were"
        )
    return clip


def table_tokens(state: Mapping[str, Tensor], given: Given) -> int | None:
    """Rows of the position table in the file, None where it has none."""
    return state["encoder.pos_embed"].shape[1] if "encoder.pos_embed" in state else given.tokens


def _usual(frames: int | None, size: int | None, notes: list[str]) -> ClipShape:
    unknown = {"frames": frames is None, "size": size is None}
    if any(unknown.values()):
        which = " and ".join(name for name, is_unknown in unknown.items() if is_unknown)
        notes.append(
            f"{which} of the clips it was trained with are not in the file: taken as {frames or USUAL.frames} frames "
            f"of {size or USUAL.size} x {size or USUAL.size}, as published models; "
            "else give --trained-frames and --trained-size"
        )
    return ClipShape(frames=frames or USUAL.frames, size=size or USUAL.size)


def _of_tokens(
    tokens: int, cube: Cube, frames: int | None, size: int | None, given: Given, notes: list[str]
) -> ClipShape:
    """The clip with so many cubes, with the given frames or size where they are known."""
    if frames and size:
        return ClipShape(frames=frames, size=size)
    if frames:
        choices = [_with_frames(tokens, cube, frames)]
    elif size:
        choices = [_with_size(tokens, cube, size)]
    else:
        choices = [_with_size(tokens, cube, USUAL.size), _with_frames(tokens, cube, USUAL.frames)]
    for clip in choices:
        if clip is not None:
            if not (frames or size):
                notes.append(
                    f"its {tokens} positions are taken as those of {clip.frames} frames of {clip.size} x {clip.size}; "
                    "else give --trained-frames and --trained-size"
                )
            return clip
    raise ValueError(
        f"{given.file}: its position table has {tokens} rows, which is no clip of "
        f"{f'{frames} frames' if frames else f'size {size}' if size else 'the usual length or size'} "
        f"with cubes of {tuple(cube)}; give --trained-frames and --trained-size"
    )


def _with_frames(tokens: int, cube: Cube, frames: int) -> ClipShape | None:
    steps = frames // cube.frames
    side = math.isqrt(tokens // steps) if steps else 0
    return ClipShape(frames=frames, size=side * cube.height) if side and steps * side * side == tokens else None


def _with_size(tokens: int, cube: Cube, size: int) -> ClipShape | None:
    places = (size // cube.height) ** 2
    steps = tokens // places if places else 0
    return ClipShape(frames=steps * cube.frames, size=size) if steps and steps * places == tokens else None


@dataclass(frozen=True)
class _Heads:
    """Where the heads of one of the two networks are looked for."""

    prefix: str
    what: str
    option: str
    hint: int | None
    published: Mapping[int, int]


def _heads(state: Mapping[str, Tensor], width: int, wanted: _Heads, given: Given, notes: list[str]) -> int:
    scale = state.get(f"{wanted.prefix}blocks.0.attention.scale")
    if scale is not None:
        if wanted.hint not in (None, len(scale)):
            raise ValueError(
                f"{given.file}: has {len(scale)} {wanted.what}, not {wanted.hint}; leave {wanted.option} out"
            )
        return len(scale)
    if wanted.hint is not None:
        if width % wanted.hint:
            raise ValueError(f"{given.file}: {wanted.hint} {wanted.what} do not divide the width {width}")
        return wanted.hint
    if width not in wanted.published:
        raise ValueError(
            f"{given.file}: the number of {wanted.what} is not in the file, and no published model has the width "
            f"{width}; give {wanted.option}"
        )
    heads = wanted.published[width]
    if not given.options.names_a_size:
        notes.append(
            f"{wanted.what} are not in the file: taken as {heads}, as the published models of width {width}; "
            f"else give {wanted.option}"
        )
    return heads


def _cube_of(state: Mapping[str, Tensor], file: Path) -> tuple[int, Cube]:
    """Width and cube from the embedding [D,3,f,p,p]."""
    shape = _tensor(state, "encoder.patch_embed.weight", file).shape
    if len(shape) != 5 or shape[1] != 3 or shape[3] != shape[4]:
        raise ValueError(
            f"{file}: the patch embedding is {list(shape)}; tubelet reads [width, 3, frames, patch, patch]"
        )
    return shape[0], Cube(*shape[2:])


def _depth(state: Mapping[str, Tensor], prefix: str, file: Path) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}blocks\.(\d+)\.")
    numbers = {int(match[1]) for match in map(pattern.match, state) if match}
    missing = sorted(set(range(max(numbers, default=0) + 1)) - numbers)
    if missing:
        raise ValueError(f"{file}: lacks {prefix}blocks.{missing[0]}, although it has others: is it a part of a model?")
    return len(numbers)


def _size(state: Mapping[str, Tensor], name: str, axis: int, file: Path) -> int:
    return _tensor(state, name, file).shape[axis]


def _tensor(state: Mapping[str, Tensor], name: str, file: Path) -> Tensor:
    if name not in state:
        raise ValueError(f"{file}: lacks {name}: is it a part of a model only?")
    if not state[name].ndim:
        raise ValueError(f"{file}: {name} is a single number, not a tensor of weights")
    return state[name]
