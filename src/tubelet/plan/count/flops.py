"""Floating-point operations of training, counted from the recipe.

A matrix product of `rows` vectors with a matrix [inputs, outputs] takes `2 * rows * inputs * outputs`: a multiplication
and an addition for each. Attention takes `4 * rows * tokens * width`: half for the logits, half for the weighted sum of
the values. Nothing else is counted: norms, GELU, softmax, loss, optimiser (some 15 for each parameter and step) and
the average of weights are below a hundredth of the products.

    block             2*(2*T*D*D + R*D*D) + 2*R*D*D + 4*R*D*M + 4*R*T*D
    patch embedding   2*S*P*D
    encoder           blocks with T = R = S
    decoder           2*S*D*d, blocks with T = R = S + K, the last one with R = K
    head              2*K*d*P, or 2*D*classes

T tokens that a block reads, R rows that go on, D and M its width and hidden width; S tokens that the encoder sees (all
of them in fine-tuning), K that the decoder predicts, d its width, P numbers of a cube. Blocks with pooling attention
are counted in `tubelet.plan.count.pooled_blocks`; a patch embedding whose cubes overlap has P numbers under its kernel.

Backward is twice the forward: a product for the gradient of the input, one for that of the matrix. The patch embedding
needs only the second, for nothing before it learns. With `checkpointing` blocks run forward again, up to the last
linear map: what that gives is not needed but for layer scale and drop path.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tubelet.plan.count.blocks import AnyBlock
from tubelet.plan.count.shapes import Layout


@dataclass(frozen=True)
class Part:
    """FLOPs of one part for one clip."""

    name: str
    forward: int
    backward: int
    recomputed: int = 0


@dataclass(frozen=True)
class Flops:
    """FLOPs of one clip."""

    parts: tuple[Part, ...]

    @property
    def forward(self) -> int:
        """One pass."""
        return sum(part.forward for part in self.parts)

    @property
    def training(self) -> int:
        """Forward and backward: what MFU counts (arXiv:2204.02311, appendix B), whatever is computed twice."""
        return self.forward + sum(part.backward for part in self.parts)

    @property
    def executed(self) -> int:
        """`training`, and what checkpointing computes again."""
        return self.training + sum(part.recomputed for part in self.parts)


def count_flops(shapes: Layout) -> Flops:
    """FLOPs of training on one clip, part by part."""
    embed, head = shapes.embed.flops, shapes.head.flops
    encoder = blocks_flops(shapes.encoder)
    decoder = blocks_flops(shapes.decoder) + (0 if shapes.narrow is None else shapes.narrow.flops)
    parts = (
        Part("patch embedding", embed, embed),
        Part("encoder", encoder, 2 * encoder, recomputed_flops(shapes.encoder[: shapes.recomputed.encoder])),
        Part("decoder", decoder, 2 * decoder, recomputed_flops(shapes.decoder[: shapes.recomputed.decoder])),
        Part("head", head, 2 * head),
    )
    return Flops(tuple(part for part in parts if part.forward))


def blocks_flops(blocks: Iterable[AnyBlock]) -> int:
    """Forward, one clip."""
    return sum(block.mixing_flops + sum(one.flops for one in block.linears) for block in blocks)


def recomputed_flops(blocks: Iterable[AnyBlock]) -> int:
    """Of checkpointed blocks, one clip."""
    return sum(blocks_flops([block]) - (0 if block.recomputes_all else block.linears[-1].flops) for block in blocks)
