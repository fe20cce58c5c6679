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

Letters as in `tubelet.train.flops`. With T = R and M = 4*D a block keeps 36*D bytes a token in bf16, 64*D in fp32.

The peak is the largest of: the end of forward (with target, prediction, squares: K*P*(8 + a)), backward of the loss
(16*K*P more), each block of backward (what is still kept, gradients so far, what the block itself needs), the
update (all gradients). Where the kernel of attention is at hand, what it holds is measured (`tubelet.train.live`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tubelet.train.shapes import Block, Layout, Linear

PARAMETER_BYTES = 4
ADAMW_BYTES = 8
NORM_BYTES = 8
"""Mean and deviation that a norm keeps for each row."""


@dataclass(frozen=True)
class Held:
    """Bytes that attention keeps for backward of one clip, those that its backward needs on top, and once for all."""

    kept: int
    backward: int
    fixed: int = 0


AttentionBytes = Callable[[Block, int], Held]
"""Of a block, and the bytes of a number in the precision of the run."""


def fused_attention(block: Block, number: int) -> Held:
    """A kernel that keeps queries, keys, values, its result and log-sums, never the weights (arXiv:2205.14135)."""
    asked = (2 * block.tokens + block.rows) * block.width * number
    return Held(asked + block.rows * block.width * number + 4 * block.rows * block.heads, 2 * asked)


@dataclass(frozen=True)
class Setting:
    """How a step runs on one device: `clips` of a piece, `loaded` clips of all its pieces, bytes of a `number`.

    `gradients_stay`: they are there during forward, because pieces add up or DDP keeps its buckets. `shards`: devices
    that share weights, gradients and optimiser (FSDP); 1 is all of them whole on each.
    """

    clips: int
    loaded: int
    number: int
    average: bool = False
    blended: bool = False
    gradients_stay: bool = False
    shards: int = 1
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
    patches = shapes.embed.rows * shapes.embed.inputs
    yield _Stage(
        "patch embedding",
        kept=clips * number * patches,
        parameters=_size(shapes.embed),
        copies=_copies(number, shapes.embed),
        forward=2 * blended + clips * 4 * patches,
    )
    for number, block in enumerate(shapes.encoder):
        again = number < shapes.recomputed.encoder
        yield _block_stage("encoder", block, setting, recomputed=again, beside=blended)
    yield from _decoder(shapes, setting)


def _decoder(shapes: Layout, setting: Setting) -> Iterator[_Stage]:
    clips, number, head = setting.clips, setting.number, shapes.head
    if shapes.narrow is None:
        yield _Stage("head", 0, _size(head), _copies(number, head))
        return
    narrow = shapes.narrow
    kept = narrow.rows * (narrow.inputs * (4 + number) + NORM_BYTES)
    yield _Stage("decoder", clips * kept, _size(narrow), _copies(number, narrow))
    for number, block in enumerate(shapes.decoder):
        yield _block_stage("decoder", block, setting, recomputed=number < shapes.recomputed.decoder)
    scores = clips * head.rows * head.outputs
    yield _Stage(
        "head and loss",
        kept=clips * head.rows * (head.inputs * (4 + number) + NORM_BYTES) + 4 * scores,
        parameters=_size(head),
        copies=_copies(number, head),
        forward=(8 + number) * scores,
        backward=16 * scores,
    )


def _block_stage(name: str, block: Block, setting: Setting, *, recomputed: bool, beside: int = 0) -> _Stage:
    """`beside` are bytes that wait during forward.

    Backward comes to attention when the MLP has let go of what it kept, and has made its gradients.
    """
    clips, number, rows = setting.clips, setting.number, block.rows * block.width
    core = setting.attention(block, number)
    whole = block_kept(block, number) + core.kept
    kept = 4 * block.tokens * block.width if recomputed else whole
    copies, largest = _copies(number, *block.linears), max(_copies(number, one) for one in block.linears)
    mlp = clips * (rows * (4 + number) + 2 * number * block.rows * block.hidden)
    attention = clips * (4 * rows + core.backward - _mlp_kept(block, number)) + core.fixed
    sizes = [_size(one) for one in block.linears]
    return _Stage(
        name,
        kept=clips * kept,
        parameters=sum(sizes) + 4 * block.width,
        copies=0 if recomputed else copies,
        recomputed=clips * (whole - kept) + copies if recomputed else 0,
        forward=clips * rows * (4 + 2 * number) + beside + (largest if recomputed else 0),
        backward=max(mlp + PARAMETER_BYTES * sizes[-1], attention + PARAMETER_BYTES * sum(sizes)),
        is_block=True,
    )


def block_kept(block: Block, number: int) -> int:
    """Bytes that a block keeps for one clip, without those of attention itself."""
    tokens, rows = block.tokens * block.width, block.rows * block.width
    again = rows * number if block.rows < block.tokens else 0
    scaled = rows * number if block.scaled else 0
    return tokens * (4 + number) + again + NORM_BYTES * block.tokens + scaled + _mlp_kept(block, number)


def _mlp_kept(block: Block, number: int) -> int:
    rows, hidden = block.rows * block.width, block.rows * block.hidden
    scaled = rows * number if block.scaled else 0
    return rows * (4 + number) + 2 * hidden * number + NORM_BYTES * block.rows + scaled


def _size(linear: Linear) -> int:
    return linear.inputs * linear.outputs + linear.outputs


def _copies(number: int, *linears: Linear) -> int:
    """bf16 copies of fp32 matrices."""
    return 0 if number == 4 else number * sum(_size(linear) for linear in linears)
