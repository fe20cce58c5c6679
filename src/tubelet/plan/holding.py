"""How a model is held on devices (whole or spread), and how many clips fit beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as with_changes
from functools import partial
from typing import Final

from tubelet.plan.count.memory import Memory, Setting, estimate_memory, fused_attention
from tubelet.plan.count.shapes import Recomputed, layout
from tubelet.plan.equipment import Equipment
from tubelet.plan.measure.live import attention_held
from tubelet.recipe import EncoderRun, FinetuneRecipe

USABLE: Final = 0.9
"""Share of a device's memory that a plan may fill."""
MOST_CLIPS: Final = 2**16


@dataclass(frozen=True)
class Batch:
    """Videos of a step; clips (videos times views) of a step, on one device, and in a piece there."""

    videos: int
    clips: int
    clips_per_device: int
    pieces: int
    clips_per_piece: int


@dataclass(frozen=True)
class Holding:
    """One way to hold the model: the peak of a step, and the most clips of a piece that fit (0: not one)."""

    form: str
    memory: Memory
    largest_piece: int


@dataclass(frozen=True)
class Fewest:
    """The fewest devices of a kind that hold a run, and the most clips of a piece that fit there.

    More than one share weights, gradients and optimiser (`run.parallel=fsdp`); `memory` is for pieces of one clip.
    """

    count: int
    largest_piece: int
    memory: Memory


def share_out(recipe: EncoderRun, count: int) -> Batch:
    """The batch over `count` devices; ValueError where it is no multiple of them."""
    videos = recipe.run.batch_size
    if videos % count:
        raise ValueError(f"run.batch_size {videos} is not a multiple of the {count} devices")
    clips = videos * recipe.data.views
    pieces = min(recipe.run.accumulate, clips // count)
    return Batch(videos, clips, clips // count, pieces, -(-clips // (count * pieces)))


class Scales:
    """Weighs steps of a recipe on some equipment, whole (one device, or DDP) and spread (FSDP)."""

    def __init__(self, recipe: EncoderRun, batch: Batch, equipment: Equipment, *, parameters: int) -> None:
        site = equipment.site
        tuned = recipe if isinstance(recipe, FinetuneRecipe) else None
        self._shapes, self._parameters = layout(recipe), parameters
        self._count, self._usable = equipment.count, int(USABLE * equipment.memory_bytes)
        self._batch, self._on_gpu = batch, equipment.on_gpu
        self._setting = Setting(
            clips=batch.clips_per_piece,
            loaded=self._loaded(equipment.count),
            number=equipment.number,
            average=tuned is not None and tuned.ema is not None,
            blended=tuned is not None and tuned.mixing.mixup > 0,
            on_cpu=not equipment.on_gpu,
            attention=fused_attention if site is None else attention_held(site, batch.clips_per_piece),
        )

    def holdings(self) -> tuple[Holding, ...]:
        """All forms that the devices allow, the usual one first."""
        forms = ["one device"] if self._count == 1 else ["ddp", "fsdp"]
        return tuple(Holding(form, self.weigh(form), self._largest(partial(self.weigh, form))) for form in forms)

    def fewest(self) -> Fewest | None:
        """The fewest devices, of numbers that divide the batch, that hold a step; None where no number does."""
        videos = self._batch.videos
        for count in (one for one in range(1, videos + 1) if videos % one == 0):
            weigh = partial(self._in_pieces, count)
            largest = self._largest(weigh)
            if largest:
                return Fewest(count, largest, weigh(clips=1))
        return None

    def weigh(self, form: str, *, clips: int | None = None, recomputed: Recomputed | None = None) -> Memory:
        """The peak of a step with these clips in a piece; `recomputed` as the recipe has it unless given."""
        shapes = self._shapes if recomputed is None else with_changes(self._shapes, recomputed=recomputed)
        setting = with_changes(
            self._setting,
            clips=self._batch.clips_per_piece if clips is None else clips,
            gradients_stay=form == "ddp" or self._batch.pieces > 1,
            shards=self._count if form == "fsdp" else 1,
        )
        return estimate_memory(shapes, self._parameters, setting)

    def _in_pieces(self, count: int, *, clips: int) -> Memory:
        """The peak of a step that `count` devices share, in pieces of so many clips."""
        setting = with_changes(
            self._setting, clips=clips, loaded=self._loaded(count), gradients_stay=True, shards=count
        )
        return estimate_memory(self._shapes, self._parameters, setting)

    def _loaded(self, count: int) -> int:
        """Clips on one of `count` devices; on a GPU the next batch is there already."""
        return self._batch.clips // count * (2 if self._on_gpu else 1)

    def _largest(self, weigh: Callable[..., Memory]) -> int:
        """By halving: more clips never take less."""
        fits, fails = 0, MOST_CLIPS
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if weigh(clips=middle).peak <= self._usable:
                fits = middle
            else:
                fails = middle
        return fits
