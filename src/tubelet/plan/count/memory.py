"""Memory of a training step on one device, counted from shapes.

Bytes for each parameter: 4 the weight, 4 its gradient, 8 AdamW, 4 the average (`ema`); fp32, whatever the precision.
Under bf16 each matrix has a bf16 copy, 2 bytes, from its forward to its backward, in a recomputed block while it is
used. Clips wait as bytes.

What backward needs is kept since forward: activations. For each clip, with `a` bytes a number (2 in bf16, 4 in fp32):

    block             T*D*(4 + a)          input, and the same normed; R*D*a once more where R < T
                      (2*T + R)*D*a        queries, keys, values
                      R*D*a + 4*R*heads    what attention gives, and its log-sums
                      R*D*(4 + a)          input of the MLP, and the same normed
                      2*R*M*a              before and after GELU
                      2*R*D*a              with layer scale only
    recomputed block  4*T*D                its input
    patch embedding   a*S*P                normalised cubes that the encoder sees
    decoder's input   S*D*(4 + a)
    head              K*d*(4 + a)
    loss              4*K*P

Letters as in `tubelet.plan.count.flops`. With T = R and M = 4*D a block keeps 36*D bytes a token in bf16, 64*D in fp32.
Blocks with pooling attention are in `tubelet.plan.count.pooled_blocks`.

The peak is the largest of: the making of targets (a target's `peak_bytes`, with the prediction), the end of forward
(with target, prediction, squares: K*P*(8 + a)), backward of the loss (16*K*P more), each block of backward (what is
still kept, gradients so far, what the block itself needs), the update (all gradients). Where the kernel of attention
is at hand, what it holds is measured (`tubelet.plan.measure.live`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tubelet.plan.count.blocks import NORM_BYTES, AnyBlock, Core, Linear
from tubelet.plan.count.shapes import Layout

PARAMETER_BYTES = 4
ADAMW_BYTES = 8


@dataclass(frozen=True)
class Held:
    """Bytes that attention keeps for backward of one clip, those that its backward needs on top, and once for all."""

    kept: int
    backward: int
    fixed: int = 0


AttentionBytes = Callable[[Core, int], Held]
"""Of attention, and the bytes of a number in the precision of the run."""


def fused_attention(core: Core, number: int) -> Held:
    """A kernel that keeps queries, keys, values, its result and log-sums, never the weights (arXiv:2205.14135)."""
    asked = (2 * core.tokens + core.rows) * core.width * number
    return Held(asked + core.rows * core.width * number + 4 * core.rows * core.heads, 2 * asked)


@dataclass(frozen=True)
class Setting:
    """How a step runs on one device: `clips` of a piece, `loaded` clips of all its pieces, bytes of a `number`.

    `gradients_stay`: they are there during forward, because pieces add up or DDP keeps its buckets. `shards`: devices
    that share weights, gradients and optimiser (FSDP); 1 is all of them whole on each. `on_cpu`: norms and pooling
    convolutions keep other numbers there.
    """

    clips: int
    loaded: int
    number: int
    average: bool = False
    blended: bool = False
    gradients_stay: bool = False
    shards: int = 1
    on_cpu: bool = False
    attention: AttentionBytes = fused_attention


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak of a step. `moment` says when that is; `passing` are what only it needs."""

    weights: int
    average: int
    optimiser: int
    gradients: int
    copies: int
    batch: int
    activations: dict[str, int]
    passing: int
    moment: str
    peak: int


@dataclass(frozen=True)
class _Stage:
    """A part of the step in the order of forward. Activations in bytes of all clips of a piece.

    `recomputed` are bytes for the time of this part's backward; `forward` and `backward` are what it needs while it
    runs, its own gradients among it.
    """

    name: str
    kept: int
    parameters: int
    copies: int
    recomputed: int = 0
    forward: int = 0
    backward: int = 0
    is_block: bool = False


def estimate_memory(shapes: Layout, parameters: int, setting: Setting) -> Memory:
    """Memory at the peak of a step of the recipe with these shapes and so many parameters."""
    stages = list(_stages(shapes, setting))
    gathered = _gathered(stages, setting)
    share = -(-parameters // setting.shards)
    base = PARAMETER_BYTES * share * (2 if setting.average else 1) + ADAMW_BYTES * share + gathered
    base += setting.loaded * shapes.clip_bytes
    gradients = PARAMETER_BYTES * share
    moments = list(_moments(stages, stay=gradients if setting.gradients_stay else 0, shards=setting.shards))
    moments.append(("update", gradients, gradients))
    name, extra, of_gradients = max(moments, key=lambda one: one[1])
    names = dict.fromkeys(stage.name for stage in stages)
    activations = {name: sum(stage.kept for stage in stages if stage.name == name) for name in names}
    copies = sum(stage.copies for stage in stages)
    during = 0 if name == "update" else copies + sum(activations.values())
    return Memory(
        weights=PARAMETER_BYTES * share + gathered,
        average=PARAMETER_BYTES * share if setting.average else 0,
        optimiser=ADAMW_BYTES * share,
        gradients=gradients,
        copies=copies,
        batch=setting.loaded * shapes.clip_bytes,
        activations=activations,
        passing=max(0, extra - during - of_gradients),
        moment=name,
        peak=base + extra,
    )


def _moments(stages: list[_Stage], *, stay: int, shards: int) -> Iterator[tuple[str, int, int]]:
    """(name, bytes beyond weights, optimiser and batch, gradients among them) at each point of forward and backward."""
    held = 0
    for stage in stages:
        held += stage.kept + stage.copies
        yield f"forward of the {stage.name}", held + stage.forward + stay, stay
    gradients = stay
    for stage in reversed(stages):
        yield f"backward of the {stage.name}", held + stage.recomputed + stage.backward + gradients, gradients
        held -= stage.kept + stage.copies
        if not stay:
            gradients += PARAMETER_BYTES * stage.parameters // shards


def _gathered(stages: list[_Stage], setting: Setting) -> int:
    """FSDP: weights and gradients of two blocks are whole for a while, and so are the weights outside blocks."""
    if setting.shards == 1:
        return 0
    blocks = [stage.parameters for stage in stages if stage.is_block]
    rest = sum(stage.parameters for stage in stages if not stage.is_block)
    return PARAMETER_BYTES * (2 * 2 * max(blocks) + rest)


def _stages(shapes: Layout, setting: Setting) -> Iterator[_Stage]:
    clips, number = setting.clips, setting.number
    blended = clips * 4 * shapes.clip_bytes if setting.blended else 0  # mixup makes floats of bytes
    yield _Stage(
        "patch embedding",
        kept=clips * number * shapes.read,
        parameters=shapes.embed.parameters,
        copies=_copies(number, shapes.embed),
        forward=2 * blended + clips * 4 * shapes.read,
    )
    for number, block in enumerate(shapes.encoder):
        again = number < shapes.recomputed.encoder
        yield _block_stage("encoder", block, setting, recomputed=again, beside=blended)
    yield from _decoder(shapes, setting)


def _decoder(shapes: Layout, setting: Setting) -> Iterator[_Stage]:
    clips, number, head = setting.clips, setting.number, shapes.head
    if shapes.wanted == 0:
        yield _Stage("head", 0, head.parameters, _copies(number, head))
        return
    narrow = shapes.narrow
    if narrow is not None:
        kept = narrow.rows * (narrow.inputs * (4 + number) + NORM_BYTES)
        yield _Stage("decoder", clips * kept, narrow.parameters, _copies(number, narrow))
    for number, block in enumerate(shapes.decoder):
        yield _block_stage("decoder", block, setting, recomputed=number < shapes.recomputed.decoder)
    scores = clips * head.rows * head.outputs
    kept = clips * (shapes.normed * (4 * head.inputs + NORM_BYTES) + head.rows * head.inputs * number)
    if shapes.aim is not None:
        making = shapes.aim.peak_bytes(clips, on_cpu=setting.on_cpu)
        yield _Stage("target", 0, 0, 0, forward=kept + number * scores + making)
    yield _Stage(
        "head and loss",
        kept=kept + 4 * scores,
        parameters=head.parameters,
        copies=_copies(number, head),
        forward=(8 + number) * scores,
        backward=16 * scores,
    )


def _block_stage(name: str, block: AnyBlock, setting: Setting, *, recomputed: bool, beside: int = 0) -> _Stage:
    """`beside` are bytes that wait during forward.

    Backward comes to attention when the MLP has let go of what it kept, and has made its gradients.
    """
    clips, number = setting.clips, setting.number
    core, needs = setting.attention(block.core, number), block.needs(number, on_cpu=setting.on_cpu)
    whole = needs.kept + core.kept
    kept = needs.entered if recomputed else whole
    copies, largest = _copies(number, *block.linears), max(_copies(number, one) for one in block.linears)
    mlp = clips * needs.mlp + PARAMETER_BYTES * block.linears[-1].parameters
    attention = max(clips * (needs.attention + core.backward - needs.mlp_kept) + core.fixed, clips * needs.inputs)
    return _Stage(
        name,
        kept=clips * kept,
        parameters=block.parameters,
        copies=0 if recomputed else copies,
        recomputed=clips * (whole - kept) + copies if recomputed else 0,
        forward=clips * needs.forward + beside + (largest if recomputed else 0),
        backward=max(mlp, attention + PARAMETER_BYTES * sum(one.parameters for one in block.linears)),
        is_block=True,
    )


def _copies(number: int, *linears: Linear) -> int:
    """bf16 copies of fp32 matrices."""
    return 0 if number == 4 else number * sum(linear.parameters for linear in linears)
