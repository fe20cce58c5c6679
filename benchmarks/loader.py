"""Clips a second and core: our loader against what the authors' loaders do with decord, on the same videos.

python benchmarks/loader.py           340x256 and 1280x720, 9 rounds, appended to results/loader.jsonl
python benchmarks/loader.py --quick   340x256 alone, 3 rounds, nothing appended

A clip is 16 frames, every 4th, and a multi-scale crop of 224x224, frames and crop drawn alike for both. The decord path
is written here from the description of VideoMAE's loader: one reader thread, `get_batch`, PIL images, PIL crop and
bilinear resize, float, normalised. Ours gives bytes; normalising is the model's work. `originals` are made by
benchmarks/videos.py, `prepared` from them by `tubelet prepare` with its defaults. Everything runs in one process with
one thread, in turn and in a new order each round; CPU seconds of the process are counted, which other work on the
machine blurs less than the clock. Pixels are compared before anything is timed. Ends with `repeat4 N.NN` (originals,
4 clips of each decoded video) and `ratio N.NN` (prepared), both against decord on the 340x256 originals.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import decord
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common import append, facts, spread
from tubelet.data.dataset import ClipDataset, ClipPlan, FrameReader, Sample
from tubelet.rng import generator
from tubelet.types import ClipShape
from tubelet.video.augment.augment import Augment, MultiScaleCrop
from tubelet.video.augment.colour import IMAGENET_MEAN_BYTES, IMAGENET_STD_BYTES
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.prepare.transcode import Preparation, transcode
from tubelet.video.read.file import open_video
from tubelet.video.read.pixels import shrink
from tubelet.video.sample import Strided
from videos import write_original

CLIP: Final = ClipShape(frames=16, size=224)
SAMPLER: Final = Strided(stride=4)
CROP: Final = MultiScaleCrop()
PLAN: Final = ClipPlan(clip=CLIP, sampler=SAMPLER, augment=Augment(crop=CROP), seed=0)
VIEWS: Final = 4
MEAN: Final = np.array(IMAGENET_MEAN_BYTES, np.float32)
STD: Final = np.array(IMAGENET_STD_BYTES, np.float32)


@dataclass(frozen=True)
class Source:
    """Originals of one size, and the most that our crops may differ from the decord path's, in grey levels of 255.

    Crops of 340x256 differ by how PIL and torch round. Frames of 720p are scaled to a short side of 320 while they are
    read, so the crop is scaled twice: the mean says how much that is.
    """

    name: str
    width: int
    height: int
    files: int
    largest_difference: float
    mean_difference: float


SOURCES: Final = (
    Source("340x256", 340, 256, files=4, largest_difference=2, mean_difference=0.1),
    Source("1280x720", 1280, 720, files=2, largest_difference=32, mean_difference=2.0),
)
LOWEST_PSNR: Final = 30.0
"""Of prepared frames against the originals, dB: they are encoded once more."""


def main() -> None:
    options = read_options()
    torch.set_num_threads(1)
    decord.logging.set_level(decord.logging.FATAL)
    sources = SOURCES[:1] if options.quick else SOURCES
    ratios = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for source in sources:
            originals, prepared = make(source, folder)
            compared = compare(source, originals, prepared)
            print(f"{source.name}: " + ", ".join(f"{name} {value:.3g}" for name, value in compared.items()))
            seconds = measure(originals, prepared, rounds=options.rounds or (3 if options.quick else 9))
            ratios[source.name] = report(source, seconds, compared, write=not options.quick)
    print(f"repeat4 {ratios['340x256']['originals, 4 views']:.2f}")
    print(f"ratio {ratios['340x256']['prepared']:.2f}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--folder", type=Path, help="where the videos are kept from one run to the next")
    return parser.parse_args()


def make(source: Source, folder: Path) -> tuple[list[VideoRef], list[VideoRef]]:
    """Originals and what `tubelet prepare` makes of them."""
    originals, prepared = [], []
    for seed in range(source.files):
        name = f"{source.name}-{seed}.mp4"
        original = write_original(folder / name, width=source.width, height=source.height, seed=seed)
        target = folder / f"prepared-{name}"
        if not target.exists():
            transcode(original, [target].__getitem__, Preparation(), beat=lambda _: None)
        originals.append(VideoRef(original, None, name))
        prepared.append(VideoRef(target, None, target.name))
    return originals, prepared


def compare(source: Source, originals: list[VideoRef], prepared: list[VideoRef]) -> dict[str, float]:
    """Differences between both paths, in grey levels; AssertionError where they are larger than stated."""
    found: dict[str, list[float]] = {"frames": [], "crops": [], "crops_mean": [], "prepared_psnr": []}
    for index, (original, small) in enumerate(zip(originals, prepared, strict=True)):
        theirs, frames, order = through_decord(original.path, draw_of(0, index))
        with open_video(original.path) as video:
            found["frames"].append(largest(video.frames(order), frames))
        ours = clips_of(originals, 0, index, views=1)[0].numpy()
        back = (theirs * STD[:, None, None, None] + MEAN[:, None, None, None]).round()
        found["crops"].append(largest(ours, back))
        found["crops_mean"].append(float(np.abs(ours - back).mean()))
        with open_video(small.path) as video:
            again = video.frames(order)
        if again.shape == frames.shape:
            error = np.mean((again.astype(np.float32) - frames) ** 2)
            found["prepared_psnr"].append(float(10 * np.log10(255**2 / error)))
    worst = {name: max(values) for name, values in found.items() if values and name != "prepared_psnr"}
    if found["prepared_psnr"]:
        worst["prepared_psnr"] = min(found["prepared_psnr"])
    assert worst["frames"] == 0, worst
    assert worst["crops"] <= source.largest_difference, worst
    assert worst["crops_mean"] <= source.mean_difference, worst
    assert worst.get("prepared_psnr", LOWEST_PSNR) >= LOWEST_PSNR, worst
    return worst


def measure(originals: list[VideoRef], prepared: list[VideoRef], *, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a clip in each round; a round takes a clip (or four) of every file, drawn anew."""
    paths: dict[str, Callable[[int, int], int]] = {
        "decord, frames only": lambda epoch, index: len([decoded(originals[index].path, draw_of(epoch, index))]),
        "decord": lambda epoch, index: len([through_decord(originals[index].path, draw_of(epoch, index))]),
        "originals": lambda epoch, index: len(clips_of(originals, epoch, index, views=1)),
        "originals, 4 views": lambda epoch, index: len(clips_of(originals, epoch, index, views=VIEWS)),
        "prepared": lambda epoch, index: len(clips_of(prepared, epoch, index, views=1)),
        "prepared, 4 views": lambda epoch, index: len(clips_of(prepared, epoch, index, views=VIEWS)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for epoch in range(rounds + 1):  # the first one warms up
        spent = dict.fromkeys(paths, 0.0)
        clips = dict.fromkeys(paths, 0)
        for index, name in shuffled([(index, name) for index in range(len(originals)) for name in paths], epoch):
            begin = time.process_time()
            clips[name] += paths[name](epoch, index)
            spent[name] += time.process_time() - begin
        for name in paths:
            if epoch > 0:
                seconds[name].append(spent[name] / clips[name])
    return seconds


def shuffled(work: list[tuple[int, str]], epoch: int) -> list[tuple[int, str]]:
    """In another order each round: what ran before leaves its traces in the caches."""
    return [work[place] for place in np.random.default_rng(epoch).permutation(len(work))]


def report(
    source: Source, seconds: dict[str, list[float]], compared: dict[str, float], *, write: bool
) -> dict[str, float]:
    """Print and keep a line for each path; how many times the clips of the decord path each gives."""
    ratios = {}
    for name, values in seconds.items():
        each = [theirs / ours for theirs, ours in zip(seconds["decord"], values, strict=True)]
        ratios[name] = statistics.median(each)
        middle = statistics.median(values)
        print(f"  {name:20s} {1000 * middle:7.1f} ms  {1 / middle:6.1f} clips/s and core  x{ratios[name]:.2f}")
        if write:
            record = {
                "originals": source.name,
                "path": name,
                "cpu_seconds_per_clip": middle,
                "clips_per_second_and_core": 1 / middle,
                "times_decord": ratios[name],
                "spread_of_ratio": spread(each),
                "rounds": len(values),
                "files": source.files,
                "differences": compared,
            }
            append("loader", {**facts(torch.device("cpu")), **record})
    return ratios


@dataclass(frozen=True)
class Drawn:
    """What is drawn for a clip once the video's length and size are known."""

    rng: np.random.Generator

    def frames(self, total: int) -> np.ndarray:
        return SAMPLER.train(total, CLIP.frames, self.rng)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in a frame of this size: as MultiScaleCrop draws in one of the size we read."""
        small_width, small_height = shrink((width, height), FrameReader(CLIP, cache=None).short_side)
        sizes = CROP.sizes(small_height, small_width, CLIP.size)
        crop_height, crop_width = sizes[int(self.rng.integers(len(sizes)))]
        places = CROP.offsets(small_height - crop_height, small_width - crop_width)
        top, left = places[int(self.rng.integers(len(places)))]
        wider, higher = width / small_width, height / small_height
        right, bottom = left + crop_width, top + crop_height
        return round(left * wider), round(top * higher), round(right * wider), round(bottom * higher)


def draw_of(epoch: int, index: int) -> Drawn:
    return Drawn(generator(PLAN.seed, epoch, index, 0))


def through_decord(path: Path, drawn: Drawn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clip float32 [3, T, 224, 224] normalised, in units of bytes; the frames as decoded; their numbers."""
    frames, order = decoded(path, drawn)
    box = drawn.box(*frames.shape[1:3])
    images = [Image.fromarray(frame).convert("RGB") for frame in frames]
    crops = [image.crop(box).resize((CLIP.size, CLIP.size), Image.Resampling.BILINEAR) for image in images]
    stacked = np.concatenate([np.asarray(crop) for crop in crops], axis=2)  # [224, 224, 3 T]
    planes = np.ascontiguousarray(stacked.transpose(2, 0, 1)).astype(np.float32)
    clip = planes.reshape(CLIP.frames, 3, CLIP.size, CLIP.size).transpose(1, 0, 2, 3)
    clip = (clip - MEAN[:, None, None, None]) / STD[:, None, None, None]
    return clip, frames, order


def decoded(path: Path, drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [T, H, W, 3] and their numbers."""
    reader = decord.VideoReader(str(path), num_threads=1, ctx=decord.cpu(0))
    order = drawn.frames(len(reader))
    return reader.get_batch(order.tolist()).asnumpy(), order


def clips_of(videos: list[VideoRef], epoch: int, index: int, *, views: int) -> Tensor:
    """Clips uint8 [V, 3, T, 224, 224] as a worker of ours gives them."""
    sample = ClipDataset(videos, replace(PLAN, views=views))[(epoch, index)]
    assert isinstance(sample, Sample), sample
    return sample.video


def largest(one: Any, other: Any) -> float:
    return float(np.abs(one.astype(np.float32) - other).max())


if __name__ == "__main__":
    main()
