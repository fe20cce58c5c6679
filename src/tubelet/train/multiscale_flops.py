"""Floating-point operations of training a multiscale transformer, counted from its spec as in `tubelet.train.flops`.

    patch embedding   2*N*P*D              N tokens of its grid, P pixels under the kernel
    block             2*n*D*3*A            queries, keys, values of the n tokens that come in, A the width of attention
                      2*(q + 2*k)*A*K      pooling by a kernel of K places
                      4*q*k*A              q queries, k keys
                      2*q*A*(t + h + w)    relative positions, of the sides of the key grid
                      2*q*A*A              projection
                      2*2*q*A*M            MLP, M hidden
                      2*r*D*A              skip that widens, of the tokens that it is taken from

The class token is counted wherever there is one. Norms, max pooling and softmax are not.
"""

from __future__ import annotations

import math
from typing import Final

from tubelet.models.mvit_spec import BlockShape, MViTSpec, block_shapes
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.train.flops import Flops, Part, count_flops
from tubelet.train.shapes import UNKNOWN_CLASSES, counts, layout
from tubelet.types import ClipShape
from tubelet.weights.targets import planned_target

COLOURS: Final = 3


def clip_flops(recipe: PretrainRecipe | FinetuneRecipe) -> Flops:
    """FLOPs of training on one clip, whatever the encoder. ValueError where cube, clip and mask do not fit."""
    encoder = recipe.model.encoder
    if not isinstance(encoder, MViTSpec):
        return count_flops(layout(recipe))
    if isinstance(recipe, FinetuneRecipe):
        return multiscale_flops(encoder, recipe.clip, outputs=recipe.classes or UNKNOWN_CLASSES, rows=1)
    _, wanted = counts(recipe)
    return multiscale_flops(encoder, recipe.clip, outputs=planned_target(recipe).width(encoder.cube), rows=wanted)


def multiscale_flops(spec: MViTSpec, clip: ClipShape, *, outputs: int, rows: int) -> Flops:
    """Of one clip, with a linear head of so many outputs on `rows` tokens."""
    embed = 2 * clip.grid(spec.patch_cube).tokens * COLOURS * math.prod(spec.patch_kernel) * spec.width
    blocks = sum(_block(spec, shape) for shape in block_shapes(spec, clip))
    head = 2 * rows * spec.out_width * outputs
    return Flops(
        (
            Part("patch embedding", embed, embed),
            Part("encoder", blocks, 2 * blocks, blocks if spec.checkpointing else 0),
            Part("head", head, 2 * head),
        )
    )


def _block(spec: MViTSpec, shape: BlockShape) -> int:
    pooling, widths = shape.pooling, shape.widths
    first = int(spec.class_token)
    came = pooling.grid.tokens + first
    queries, keys = pooling.q_grid.tokens + first, pooling.kv_grid.tokens + first
    width, hidden = widths.attention, int(widths.attention * spec.mlp_ratio)
    linear = came * widths.into * 3 * width + queries * width * width + queries * hidden * (width + widths.out)
    pooled = (queries + 2 * keys) * width * math.prod(spec.pool_kernel)
    sides = sum(side for side, rows in zip(pooling.kv_grid, pooling.rows, strict=True) if rows)
    attention = 2 * queries * keys * width + queries * width * sides
    skip = (came if width != widths.into else queries) * widths.into * widths.out if widths.into != widths.out else 0
    return 2 * (linear + pooled + attention + skip)
