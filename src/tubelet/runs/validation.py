"""A look at validation videos after each epoch of a fine-tuning run: accuracy of all, and of each source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from tubelet.data.dataset import Skipped
from tubelet.data.mixed import Source
from tubelet.eval.metrics import top_k
from tubelet.eval.scoring import pass_unseen, passes, score_videos
from tubelet.methods.classifier import Classifier
from tubelet.recipe import FinetuneRecipe
from tubelet.runs.skeleton import Beginning
from tubelet.spec import replace
from tubelet.train.distributed.process_group import gather, place
from tubelet.train.records.log import LOG, read_log

ACCURACY: Final = "accuracy"
BEST: Final = "best_accuracy"


def validation(
    sources: Sequence[Source], recipe: FinetuneRecipe, classifier: Callable[[], Classifier], beginning: Beginning
) -> Callable[[int], Mapping[str, float]]:
    """What the loop calls after each epoch: accuracy over all videos, that of each of several sources, the best so far.

    `classifier` gives the weights as they would be saved, in eval mode. Videos are shared out over the ranks. A video
    that cannot be read is a ValueError.
    """
    total = sum(len(source.videos) for source in sources)
    beginning.watch.say(
        f"validation after each epoch: one centre view of {total} videos; "
        "the final weights are saved, not those of the best epoch"
    )

    def validate(epoch: int) -> Mapping[str, float]:
        here, model = place(), classifier()
        right = [_right(source, recipe, model, rank=here.rank, world=here.world) for source in sources]
        by_source = [sum(counts) for counts in zip(*gather(right), strict=True)]
        accuracy = sum(by_source) / total
        found = {ACCURACY: accuracy, BEST: max([accuracy, *_before(beginning.out, epoch)])}
        if len(sources) > 1:
            for source, count in zip(sources, by_source, strict=True):
                found[f"{ACCURACY}_{source.name}"] = count / len(source.videos)
        return found

    return validate


def _right(source: Source, recipe: FinetuneRecipe, classifier: Classifier, *, rank: int, world: int) -> float:
    """How many of this rank's videos of a source get their own class, from one centre view.

    All ranks make as many passes as rank 0, which has most videos: where weights are spread, a pass is made together.
    """
    videos, right = source.videos[rank::world], 0.0
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
        right = float(round(top_k(scored.scores, scored.labels, 1) * len(videos)))
    most, mine = (passes(classifier, len(source.videos[each::world])) for each in (0, rank))
    for _ in range(most - mine):
        pass_unseen(classifier, recipe, device)
    return right


def _before(out: Path, epoch: int) -> list[float]:
    """Accuracies of earlier epochs, from the log, so that a run that goes on knows them too."""
    records = [record for record in read_log(out / LOG) if "evaluation" in record]
    return [record["evaluation"][ACCURACY] for record in records if record["epoch"] < epoch]
