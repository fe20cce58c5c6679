"""What the loop is given to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tubelet.data.mixture import Mixture
from tubelet.data.streams import StreamSet, TrainingSet
from tubelet.recipe import SingleRun
from tubelet.train.optim import Ema, ParameterGroup
from tubelet.train.records.throughput import ThroughputScale
from tubelet.types import VIDEO


@dataclass(frozen=True)
class Job:
    """What to train. `method` is a `tubelet.methods.base.Method` with its first weights.

    Where ranks share the weights, all but rank 0 may give a method without numbers (`tubelet.train.building`); rank 0
    too where a checkpoint follows. `groups` are its parameters to train. `after_epoch` is called with the number of the
    epoch that ended, from 0, and gives metrics for the log; `ema` averages the weights of `method`. `mixture` says
    which videos of a `dataset` of several sources an epoch takes. `dataset` is the stream "video"; `other_streams` are
    learnt from beside it. `throughput_scale` tells what clips of the stream "video" are worth; only rank 0 asks.
    """

    recipe: SingleRun
    out: Path
    method: nn.Module
    groups: tuple[ParameterGroup, ...]
    dataset: TrainingSet
    after_epoch: Callable[[int], Mapping[str, float]] | None = None
    ema: Ema | None = None
    mixture: Mixture | None = None
    throughput_scale: Callable[[], ThroughputScale] = ThroughputScale
    other_streams: tuple[StreamSet, ...] = ()

    @property
    def streams(self) -> tuple[StreamSet, ...]:
        """All streams, that of `dataset` first: an epoch of it is an epoch of the run."""
        recipe = self.recipe
        first = StreamSet(
            VIDEO,
            self.dataset,
            recipe.run.batch_size,
            mixture=self.mixture,
            max_skipped=recipe.data.max_skipped,
        )
        return (first, *self.other_streams)
