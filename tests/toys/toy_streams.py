"""A run on two streams that takes a second: clips and images of different shapes, one encoder. Also a program."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from toy_run import CLIP, ToySet, main, pretrain_recipe

from tubelet.data.dataset import Sample, Skipped
from tubelet.data.streams import StreamSet
from tubelet.masks import MaskRules, Random, draw_mask
from tubelet.nn.attention import Attention
from tubelet.nn.block import Block, recompute
from tubelet.nn.pixels import all_cubes
from tubelet.rng import generator, step_rng, stream_rng, stream_seed
from tubelet.targets.base import weighted_mean
from tubelet.train.job import Job
from tubelet.train.optim import parameter_groups
from tubelet.types import Batch, ClipShape, Cube, Output
from tubelet.video.lists.manifest import VideoRef

IMAGE = ClipShape(frames=1, size=24)
CUBES = {"video": Cube(2, 8, 8), "image": Cube(1, 8, 8)}
CLIPS = {"video": CLIP, "image": IMAGE}
WIDTH, CODES = 24, 4


@dataclass(frozen=True)
class ImageSet:
    """Images of numbers drawn by (epoch, index); those in `bad` cannot be read, every third is scored in part only."""

    count: int = 20
    bad: tuple[int, ...] = ()
    videos: tuple[VideoRef, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = [f"{index}.jpg" for index in range(self.count)]
        object.__setattr__(self, "videos", tuple(VideoRef(Path("images") / name, None, name) for name in names))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> Sample | Skipped:
        epoch, index = key
        if index in self.bad:
            return Skipped(index, f"{index}.jpg", self.videos[index].path, "is broken")
        rng = generator(stream_seed(7, "image"), epoch, index)
        image = torch.from_numpy(rng.integers(0, 256, (3, 1, IMAGE.size, IMAGE.size), dtype="uint8"))
        masks = draw_mask(MaskRules(Random(ratio=0.5)), IMAGE.grid(CUBES["image"]), rng).stacked()
        if index % 3 == 0:
            masks[:, 2, :, 0] = False
        return Sample(index, image[None], masks, None)


class TwoShapes(nn.Module):
    """Embeds cubes of each stream in its own way, and runs both through one block; predicts the mean colour of cubes.

    `codebook` follows the tokens of all clips, `updates` counts how often: both are state.
    """

    def __init__(self, *, drop_path: float = 0.3, recomputes: bool = False) -> None:
        super().__init__()
        sizes = {name: 3 * cube.frames * cube.height * cube.width for name, cube in CUBES.items()}
        self.embed = nn.ModuleDict({name: nn.Linear(size, WIDTH) for name, size in sizes.items()})
        self.mask_token = nn.Parameter(torch.zeros(WIDTH))
        self.blocks = nn.ModuleList([Block(Attention(WIDTH, 2), mlp_ratio=2.0, drop_path=drop_path) for _ in range(2)])
        self.head = nn.ModuleDict({name: nn.Linear(WIDTH, 3) for name in CUBES})
        self.recomputes = recomputes
        self.register_buffer("codebook", torch.zeros(CODES, WIDTH))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> Output:
        losses, metrics = {}, {}
        for name, clips in batch.clips.items():
            split = batch.splits[name]
            assert split.hidden is not None
            cubes = all_cubes(clips.video, CUBES[name]).float() / 255
            with stream_rng(name):
                tokens = self.embed[name](cubes.flatten(2))
                tokens = torch.where(split.hidden.flatten(1).unsqueeze(2), self.mask_token, tokens)
                for block in self.blocks:
                    tokens = recompute(block, tokens) if self.recomputes else block(tokens)
            self._note(tokens.detach())
            clip = torch.arange(len(tokens)).unsqueeze(1)
            colours = cubes.flatten(3).mean(3)[clip, split.wanted]
            predicted: Tensor = self.head[name](tokens[clip, split.wanted])
            losses[name] = weighted_mean((predicted.float() - colours).square().mean(-1), split.weight)
            metrics[name] = {
                "miss": ((predicted.detach() - colours).abs().mean(2) * split.weight).sum() / split.weight.sum()
            }
        return Output(losses, metrics)

    def _note(self, tokens: Tensor) -> None:
        if self.training:
            self.codebook.lerp_(tokens.mean((0, 1)).expand(CODES, -1), 0.5)  # type: ignore[operator]
            self.updates.add_(1)  # type: ignore[operator]

    def count(self, batch: Batch) -> dict[str, float]:
        return {name: float(split.weight.sum()) for name, split in batch.splits.items()}

    def state_buffers(self) -> set[str]:
        return {"codebook", "updates"}


def streams_job(
    out: Path,
    *changes: str,
    images: int = 8,
    weight: float = 0.5,
    datasets: Mapping[str, Any] | None = None,
    **method: Any,
) -> Job:
    """`run.batch_size` videos (14 of them) and so many `images` (of 20) a step."""
    recipe = pretrain_recipe(*changes)
    with step_rng(recipe.seed, 0):
        built = TwoShapes(**method)
    sets = {"video": ToySet(), "image": ImageSet(), **(datasets or {})}
    groups = parameter_groups(built, weight_decay=recipe.optim.weight_decay)
    image = StreamSet("image", sets["image"], images, weight=weight, max_skipped=0.5)
    return Job(recipe, out, built, groups, sets["video"], other_streams=(image,))


if __name__ == "__main__":
    sys.exit(main({"streams": streams_job}))
