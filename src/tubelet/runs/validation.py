"""A look at validation videos after each epoch of a fine-tuning run: the task's metric of all, and of each source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from tubelet.data.dataset import Skipped
from tubelet.data.mixed import Source
from tubelet.eval.scoring import pass_unseen, passes, score_videos
from tubelet.methods.classifier import Classifier
from tubelet.recipe import FinetuneRecipe
from tubelet.runs.skeleton import Beginning
from tubelet.spec import replace
from tubelet.train.distributed.process_group import gather, place
from tubelet.train.records.log import LOG, read_log


def validation(
    sources: Sequence[Source], recipe: FinetuneRecipe, classifier: Callable[[], Classifier], beginning: Beginning
) -> Callable[[int], Mapping[str, float]]:
    """What the loop calls after each epoch: the metric over all videos, of each of several sources, the best so far.

    `classifier` gives the weights as they would be saved, in eval mode. Videos are shared out over the ranks. A video
    that cannot be read is a ValueError.
    """
    total = sum(len(source.videos) for source in sources)
    beginning.watch.say(
        f"validation after each epoch: one centre view of {total} videos; "
        "the final weights are saved, not those of the best epoch"
    )

    task = recipe.task
    best = max if task.higher_is_better else min

    def validate(epoch: int) -> Mapping[str, float]:
        here, model = place(), classifier()
        sums = [_sum(source, recipe, model, rank=here.rank, world=here.world) for source in sources]
        by_source = [sum(ranks) for ranks in zip(*gather(sums), strict=True)]
        value = sum(by_source) / total
        earlier = _before(beginning.out, epoch, task.metric)
        found = {task.metric: value, f"best_{task.metric}": best([value, *earlier])}
        if len(sources) > 1:
            for source, one in zip(sources, by_source, strict=True):
                found[f"{task.metric}_{source.name}"] = one / len(source.videos)
        return found

    return validate


def _sum(source: Source, recipe: FinetuneRecipe, classifier: Classifier, *, rank: int, world: int) -> float:
    """The sum of the task's metric over this rank's videos of a source, from one centre view of each.

    All ranks make as many passes as rank 0, which has most videos: where weights are spread, a pass is made together.
    """
    videos, found = source.videos[rank::world], 0.0
    device: torch.device = next(classifier.parameters()).device

    def refuse(bad: Skipped) -> None:
        raise ValueError(f"{bad.path}: {bad.reason}; mend it or take it out of {source.name}")

    if videos:
        own = recipe
        if source.sampler is not None:
            own = replace(recipe, data=replace(recipe.data, sampler=source.sampler))
        scored = score_videos(
            classifier, videos, own, views=(1, 1), device=device, on_bad=refuse, on_progress=lambda _: None
        )
        found = recipe.task.total(scored.scores, scored.labels)
    most, mine = (passes(classifier, len(source.videos[each::world])) for each in (0, rank))
    for _ in range(most - mine):
        pass_unseen(classifier, recipe, device)
    return found


def _before(out: Path, epoch: int, metric: str) -> list[float]:
    """Values of the metric after earlier epochs, from the log, so that a run that goes on knows them too."""
    records = [record for record in read_log(out / LOG) if "evaluation" in record]
    return [record["evaluation"][metric] for record in records if record["epoch"] < epoch]
