"""Images as clips of one frame: tubelet against Pillow alone, one core, pixels compared first.

    python benchmarks/images.py            200 JPEGs of 500 x 375, as ImageNet's are on average, and 20 of 3000 x 2250
    python benchmarks/images.py --quick    a quarter of them, few repeats, nothing is recorded

A clip is what a test sees: RGB, short side scaled down to 320 while it is read, then to 224, centre cropped. Pillow
does the same. Of the smaller images the clips are equal but for 1 of 255, as torch scales the second time; the larger
ones are decoded at a half by tubelet, which is off by 2 of 255 on average at most. Reading alone (to 320) is told, too,
and equal bit for bit where nothing is halved. Ends with `ratio N.NN`, the lowest clips/s against Pillow's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from common import append, facts, interleaved, medians, spread
from tubelet.data.dataset import EvalDataset, FrameReader, VideoViews
from tubelet.rng import generator
from tubelet.types import ClipShape
from tubelet.video.lists.manifest import read_manifest
from tubelet.video.sample import Uniform

CLIP: Final = ClipShape(frames=1, size=224)
READ_AT: Final = 320
CASES: Final = {"500x375": (500, 375, 200), "3000x2250": (3000, 2250, 20)}


def main() -> None:
    options = read_options()
    torch.set_num_threads(1)
    ratios = []
    for name, (width, height, count) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), (width, height), count // 4 if options.quick else count)
            record = measure(Path(folder), is_halved=height >= 4 * READ_AT, repeats=3 if options.quick else 7)
        ratios += [record["ratio"]]
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in record.items()))
        if not options.quick:
            append("images", {**facts(torch.device("cpu")), "images": name, **record})
    print(f"ratio {min(ratios):.2f}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def write(folder: Path, size: tuple[int, int], count: int) -> None:
    """JPEGs with detail at several scales and some grain: about 1.5 bits a pixel."""
    width, height = size
    for number in range(count):
        rng = generator(number)
        image = np.zeros((height, width, 3), np.float32)
        for cells in (4, 16, 64):
            coarse = Image.fromarray(rng.integers(0, 255, (cells * 3 // 4, cells, 3), dtype=np.uint8))
            image += np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 3
        image += rng.normal(0, 4, image.shape).astype(np.float32)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04d}.jpg", quality=90)


def measure(folder: Path, *, is_halved: bool, repeats: int) -> dict[str, float]:
    videos = read_manifest(folder, labelled=False, clip_frames=1).videos
    paths = [video.path for video in videos]
    dataset = EvalDataset(videos, clip=CLIP, sampler=Uniform())
    reader = FrameReader(CLIP, cache=None)

    def clip(index: int) -> Any:
        views = dataset[index]
        assert isinstance(views, VideoViews), views
        return views.video[0, :, 0].permute(1, 2, 0).numpy()

    def frame(index: int) -> Any:
        return reader(paths[index], lambda total: np.full((1, 1), total - 1))[0][0]

    checked = range(0, len(paths), 7)
    compare([frame(one) for one in checked], [by_pillow(paths[one]) for one in checked], 2 if is_halved else 0)
    compare([clip(one) for one in checked], [clip_by_pillow(paths[one]) for one in checked], 2 if is_halved else 1)
    every = range(len(paths))
    work: dict[str, Callable[[], object]] = {
        "tubelet": lambda: [clip(one) for one in every],
        "pillow": lambda: [clip_by_pillow(paths[one]) for one in every],
        "tubelet, reading": lambda: [frame(one) for one in every],
        "pillow, reading": lambda: [by_pillow(paths[one]) for one in every],
    }
    seconds = interleaved(work, repeats=repeats, device=torch.device("cpu"))
    middle = medians(seconds)
    return {
        **{f"{name} images/s": len(paths) / value for name, value in middle.items()},
        "ratio": middle["pillow"] / middle["tubelet"],
        "ratio of reading": middle["pillow, reading"] / middle["tubelet, reading"],
        "spread": max(spread(values) for values in seconds.values()),
    }


def by_pillow(path: Path) -> Any:
    """RGB with a short side of 320."""
    return np.asarray(_scaled(_read(path), READ_AT))


def clip_by_pillow(path: Path) -> Any:
    small = _scaled(_scaled(_read(path), READ_AT), CLIP.size)
    left, top = (small.width - CLIP.size) // 2, (small.height - CLIP.size) // 2
    return np.asarray(small.crop((left, top, left + CLIP.size, top + CLIP.size)))


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _scaled(image: Image.Image, short: int) -> Image.Image:
    width, height = image.size
    least = min(width, height)
    size = (round(width * short / least), round(height * short / least)) if short == READ_AT else (
        width * short // least, height * short // least)  # fmt: skip
    return image.resize(size, Image.Resampling.BILINEAR)


def compare(ours: Sequence[Any], theirs: Sequence[Any], allowed: int) -> None:
    """Every pixel within `allowed` up to 1; above that the mean of an image is."""
    for one, other in zip(ours, theirs, strict=True):
        off = np.abs(one.astype(int) - other)
        worst = off.max() if allowed <= 1 else off.mean()
        assert worst <= allowed, f"pixels differ by {worst:.3g}, {allowed} allowed"


if __name__ == "__main__":
    main()
