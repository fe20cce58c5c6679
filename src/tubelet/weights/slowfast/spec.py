"""The multiscale transformer that a checkpoint is of, read from the shapes of its tensors (under our names).

Shapes tell widths, heads, where stages start, which branch widens, and by the lengths of relative tables how the grid
gets coarser. The rest is in SlowFast's settings, or as in its published models, and then a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError
from torch import Tensor

from tubelet.models.mvit.model import MViTSpec, MViTStage
from tubelet.nn.pixels import Colours
from tubelet.spec import explain
from tubelet.types import ClipShape
from tubelet.weights.tensors.slowfast_config import SlowFastConfig

PATCH_STRIDE: Final = (2, 4, 4)
KV_STRIDE: Final = (1, 8, 8)
COLOURS: Final = Colours(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
_BLOCK: Final = re.compile(r"encoder\.blocks\.(\d+)\.attention\.qkv\.weight")


@dataclass(frozen=True)
class _Shape:
    """Of one block: tokens that come in, attention, tokens that go out, heads, and rows of two tables (0: none)."""

    into: int
    attention: int
    out: int
    heads: int
    rows: int
    steps: int


def is_multiscale(state: Mapping[str, Tensor]) -> bool:
    """Whether these are tensors of an `MViT`, under our names."""
    return "encoder.blocks.0.attention.pool_k.weight" in state


def widening(state: Mapping[str, Tensor], file: Path) -> Literal["attention", "mlp"] | None:
    """Which branch makes tokens wider; None where none does."""
    shapes = _shapes(state, file)
    if any(shape.attention != shape.into for shape in shapes):
        return "attention"
    return "mlp" if any(shape.out != shape.attention for shape in shapes) else None


def check_widening(state: Mapping[str, Tensor], own: Mapping[str, Tensor], file: Path) -> None:
    """ValueError where the weights widen tokens in the other branch than our `own`: there is no way to rename that."""
    if not is_multiscale(state) or not is_multiscale(own):
        return
    found, wanted = widening(state, file), widening(own, file)
    if found is not None and wanted is not None and found != wanted:
        raise ValueError(
            f"{file}: its tokens get wider in {found}, those of this recipe's model in {wanted}; "
            f"set model.encoder.widen_in={found}"
        )


def multiscale_spec(state: Mapping[str, Tensor], config: SlowFastConfig, notes: list[str], file: Path) -> MViTSpec:
    """The encoder's spec; what was assumed is added to `notes`. ValueError where the tensors make no such model."""
    shapes = _shapes(state, file)
    embedding = state["encoder.patch_embed.weight"]
    if embedding.ndim != 5:
        raise ValueError(f"{file}: the patch embedding is {list(embedding.shape)}, not of a video model")
    _, _, *kernel = embedding.shape
    if config.kv_stride is None or config.patch_stride is None:
        notes.append(f"strides are not in the file: patches of {PATCH_STRIDE}, keys {KV_STRIDE}, as published models")
    try:
        return MViTSpec(
            width=shapes[0].into,
            depth=len(shapes),
            heads=shapes[0].heads,
            stages=_stages(shapes, config, notes),
            widen_in=widening(state, file) or "attention",
            patch_kernel=(kernel[0], kernel[1], kernel[2]),
            patch_stride=config.patch_stride or PATCH_STRIDE,
            patch_padding=(kernel[0] // 2, kernel[1] // 2, kernel[2] // 2),
            pool_kernel=tuple(state["encoder.blocks.0.attention.pool_k.weight"].shape[2:]),
            kv_stride=config.kv_stride or KV_STRIDE,
            relative_space=shapes[0].rows > 0,
            relative_time=shapes[0].steps > 0,
            residual_pooling=True if config.residual_pooling is None else config.residual_pooling,
            class_token="encoder.class_token" in state,
            absolute_positions="encoder.pos_embed_space" in state,
            mlp_ratio=_size(state, "encoder.blocks.0.mlp.fc1.weight", file) / shapes[0].attention,
            colours=config.colours or COLOURS,
        )
    except ValidationError as error:
        raise ValueError(f"{file}: {explain(error, MViTSpec)}") from error


def multiscale_clip(state: Mapping[str, Tensor], config: SlowFastConfig, file: Path) -> ClipShape:
    """The clip that relative tables are for, else that of the settings. ValueError where neither tells."""
    first, stride = _shapes(state, file)[0], config.patch_stride or PATCH_STRIDE
    frames = (first.steps + 1) // 2 * stride[0] if first.steps else config.frames
    size = (first.rows + 1) // 2 * stride[1] if first.rows else config.size
    if frames is None or size is None:
        raise ValueError(f"{file}: neither its tables nor its settings tell frames and size of the clips it is for")
    return ClipShape(frames=frames, size=size)


def _stages(shapes: tuple[_Shape, ...], config: SlowFastConfig, notes: list[str]) -> tuple[MViTStage, ...]:
    stages = []
    for block in range(len(shapes)):
        before, here = shapes[max(block - 1, 0)], shapes[block]
        wider, heads = here.attention // before.attention, here.heads // before.heads
        stride = config.q_stride(block) or _stride(shapes, block, starts=wider > 1 or heads > 1, notes=notes)
        if wider > 1 or heads > 1 or stride != (1, 1, 1):
            stages.append(MViTStage(start=block, width=wider, heads=heads, stride=stride))
    return tuple(stages)


def _stride(shapes: tuple[_Shape, ...], block: int, *, starts: bool, notes: list[str]) -> tuple[int, int, int]:
    """From the sides of two grids: a table of 2 n - 1 rows is of n places, of the finer of queries and keys."""
    if not starts:
        return 1, 1, 1
    if block + 1 < len(shapes) and shapes[block].rows:
        factor = max(round((shapes[block - 1].rows + 1) / (shapes[block + 1].rows + 1)), 1)
        return 1, factor, factor
    notes.append(f"how much coarser the grid gets in block {block} is not in the file: taken as 2, as published models")
    return 1, 2, 2


def _shapes(state: Mapping[str, Tensor], file: Path) -> tuple[_Shape, ...]:
    blocks = sorted(int(match[1]) for match in map(_BLOCK.fullmatch, state) if match)
    if blocks != list(range(len(blocks))) or not blocks:
        raise ValueError(f"{file}: lacks blocks between those it has: is it a part of a model?")
    return tuple(_shape(state, f"encoder.blocks.{block}.", file) for block in blocks)


def _shape(state: Mapping[str, Tensor], block: str, file: Path) -> _Shape:
    attention = _size(state, f"{block}attention.proj.weight", file)
    tables = [state.get(f"{block}attention.relative.rel_pos_{axis}") for axis in "ht"]
    return _Shape(
        into=_size(state, f"{block}norm1.weight", file),
        attention=attention,
        out=_size(state, f"{block}mlp.fc2.weight", file),
        heads=attention // _size(state, f"{block}attention.pool_k.weight", file),
        rows=0 if tables[0] is None else len(tables[0]),
        steps=0 if tables[1] is None else len(tables[1]),
    )


def _size(state: Mapping[str, Tensor], name: str, file: Path) -> int:
    if name not in state or not state[name].ndim:
        raise ValueError(f"{file}: lacks {name}: is it a part of a model only?")
    return len(state[name])
