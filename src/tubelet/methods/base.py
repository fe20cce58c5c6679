"""What the training loop, the planner and the benchmarks need of a method: how parts learn together."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from tubelet.types import Batch, Output


@runtime_checkable
class Method(Protocol):
    """An `nn.Module` that learns from batches.

    The loss of a step is the sum over its streams of weight * mean over what counts in that stream of the whole batch,
    whatever the ranks and pieces that share the batch: a piece's loss of a stream weighs as much as the piece counts.
    """

    def forward(self, batch: Batch) -> Output:
        """The mean loss of each stream of the batch, over what `count` counts.

        A batch is a piece of a step. It has clips of every stream of the run, some of which may weigh nothing. What is
        drawn for clips of a stream is drawn within `tubelet.rng.stream_rng(stream)`; a method on the one stream
        "video" need not enter it.
        """

    def count(self, batch: Batch) -> dict[str, float]:
        """How much each stream of the batch weighs in a mean over pieces; of a batch on the host."""

    def state_buffers(self) -> set[str]:
        """Names of the buffers that are learnt, such as a codebook that follows its members: checkpoints hold them.

        After each step ranks agree on them: floating-point ones become the mean over the ranks, so that an average of
        statistics of the clips at hand becomes that of all clips, and all others become those of rank 0. All other
        buffers are constants, or the same in all ranks without that.
        """


def state_of(method: nn.Module, names: set[str]) -> list[Tensor]:
    """The buffers of these names, in an order that is the same in all ranks; each must be one that checkpoints hold."""
    held, kept = dict(method.named_buffers()), method.state_dict().keys()
    unknown = sorted(names - (held.keys() & kept))
    assert not unknown, f"no buffers that checkpoints hold: {', '.join(unknown)}"
    return [held[name] for name in sorted(names)]
