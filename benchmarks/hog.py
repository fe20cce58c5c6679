"""HOG targets of clips: tubelet against scikit-image and a plain PyTorch form, on the same machine.

    python benchmarks/hog.py            4 clips of 16 x 224 x 224, one HOG frame a tubelet, tokens of 16 x 16
    python benchmarks/hog.py --quick    1 clip, few repeats, nothing is recorded

Outputs are compared first: rows of all tokens, with skimage on clips whose pixels are a sum of rows and columns, where
the definitions coincide (skimage takes central differences, and angles from the other axis), with the plain form on
noise too. The largest difference is 1e-5 but for one value in a thousand: a pixel on an edge of bins may go either way.

All are timed on noise. The plain form goes through colours and bins one by one (convolutions, a comparison and a
pooling per bin), skimage through frames and colours with one thread. Tubelet is given bytes and the wanted tokens: all,
or the 40 % that MaskFeat hides; the others make whole frames. Then the target's share of a step of MViTv2-S. Ends with
`ratio N.NN`, the lowest with all tokens.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any, Final

import torch
from einops import rearrange
from skimage.feature import hog as of_skimage
from torch import Tensor
from torch.nn import functional as F

from common import append, facts, interleaved, medians, spread
from tubelet.recipes.maskfeat import pretrain_s300_k400
from tubelet.rng import generator
from tubelet.targets.hog import Hog
from tubelet.types import Batch, Clips, Cube, Grid, Mask

CUBE: Final = Cube(2, 16, 16)
FRAMES: Final = 16
SIZE: Final = 224
GRID: Final = Grid(FRAMES // CUBE.frames, SIZE // CUBE.height, SIZE // CUBE.width)
TOLERANCE: Final = 1e-5
ON_EDGES: Final = 1e-3
HIDDEN: Final = 0.4


def main() -> None:
    options = read_options()
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False  # the plain form's convolutions decide about bins
    clips, repeats = (1, 7) if options.quick else (options.clips, options.repeats)
    everything = torch.arange(GRID.tokens, device=device).expand(clips, -1)
    video = noise(clips).to(device)
    check(sums(1).to(device), everything[:1], {"plain": plain, "skimage": by_skimage})
    check(video[:1], everything[:1], {"plain": plain})
    some = everything[:, torch.randperm(GRID.tokens, device=device)[: int(HIDDEN * GRID.tokens)].sort().values]
    work: dict[str, Callable[[], object]] = {
        "tubelet": lambda: Hog().rows(video, everything, CUBE),
        "tubelet, 40 %": lambda: Hog().rows(video, some, CUBE),
        "plain": lambda: plain(video),
    }
    seconds = interleaved(work, repeats=repeats, device=device)
    seconds["skimage"] = [once(lambda: by_skimage(video)) for _ in range(max(1, repeats // 4))]
    share = share_of_step(video[:1], some[:1], repeats=max(1, repeats // 4))
    print(f"ratio {report(seconds, clips, device, share=share, keep=not options.quick):.2f}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one clip, few repeats, nothing is recorded")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="skimage is on the CPU always")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, help="of the CPU; default: what torch takes")
    return parser.parse_args()


def noise(clips: int) -> Tensor:
    rng = generator(0)
    return torch.from_numpy(rng.integers(0, 256, (clips, 3, FRAMES, SIZE, SIZE), dtype="uint8"))


def sums(clips: int) -> Tensor:
    """Clips whose pixels are a number of their row plus one of their column: Sobel is four central differences."""
    rng = generator(1)
    rows = rng.integers(0, 128, (clips, 3, FRAMES, SIZE, 1), dtype="uint8")
    return torch.from_numpy(rows + rng.integers(0, 128, (clips, 3, FRAMES, 1, SIZE), dtype="uint8"))


def plain(video: Tensor) -> Tensor:
    """Rows of all tokens, colour by colour and bin by bin, as one writes it down."""
    spec = Hog()
    frames = video[:, :, :: CUBE.frames].transpose(1, 2).flatten(0, 1).float()
    kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]], device=video.device).view(1, 1, 3, 3)
    colours = []
    for colour in range(frames.shape[1]):
        padded = F.pad(frames[:, colour : colour + 1], (1, 1, 1, 1), mode="reflect")
        across, down = F.conv2d(padded, kernel), F.conv2d(padded, kernel.mT.contiguous())
        votes = torch.sqrt(across**2 + down**2)
        chosen = torch.floor(torch.atan2(across, down) / math.pi * spec.bins) % spec.bins
        bins = [F.avg_pool2d(votes * (chosen == k), spec.cell) for k in range(spec.bins)]
        colours.append(F.normalize(torch.cat(bins, 1), dim=1))
    maps = torch.stack(colours, 1)  # frames, colours, bins, y, x
    return as_rows(maps, len(video))


def by_skimage(video: Tensor) -> Tensor:
    """Rows of all tokens, frame by frame and colour by colour."""
    spec = Hog()
    frames = video[:, :, :: CUBE.frames].transpose(1, 2).flatten(0, 1).cpu()
    maps = [
        of_skimage(
            picture.T, orientations=spec.bins, pixels_per_cell=(spec.cell, spec.cell), cells_per_block=(1, 1),
            block_norm="L2", feature_vector=False,
        )[:, :, 0, 0]
        for frame in frames.numpy() for picture in frame
    ]  # fmt: skip
    stacked = torch.stack([torch.from_numpy(part) for part in maps]).unflatten(0, (len(frames), -1))
    return as_rows(stacked.permute(0, 1, 4, 3, 2), len(video))


def as_rows(maps: Tensor, clips: int) -> Tensor:
    cells = CUBE.height // Hog().cell
    return rearrange(
        maps, "(B t) C bins (h r) (w s) -> B (t h w) (C bins r s)", B=clips, r=cells, s=cells
    )  # fmt: skip


def check(video: Tensor, everything: Tensor, peers: dict[str, Callable[[Tensor], Tensor]]) -> None:
    """Nothing is timed before all agree."""
    ours = Hog().rows(video, everything, CUBE).cpu().double()
    for name, rows in peers.items():
        share = float(((ours - rows(video).cpu()).abs() > TOLERANCE).float().mean())
        if share > ON_EDGES:
            raise SystemExit(f"{name}: {share:.1e} of the values differ by more than {TOLERANCE}")
        print(f"{name}: equal within {TOLERANCE} but for {share:.1e} of the values")


def share_of_step(video: Tensor, wanted: Tensor, *, repeats: int) -> float:
    """Of forward, target, loss and backward of MaskFeat's MViTv2-S on one clip, what the target takes."""
    device, recipe = video.device, pretrain_s300_k400()
    method = recipe.model.build(recipe.clip, recipe.target).to(device)
    hidden = torch.zeros(1, GRID.tokens, dtype=torch.bool).scatter_(1, wanted.cpu(), True).view(1, *GRID)
    clips = {"video": Clips(video, torch.zeros(1, dtype=torch.int64, device=device))}
    batch = Batch(clips, {"video": Mask(hidden, hidden).split().to(device)})
    work = {"target": lambda: recipe.target.rows(video, wanted, CUBE), "step": lambda: method(batch).loss.backward()}
    middle = medians(interleaved(work, repeats=repeats, device=device))
    print(f"a step of MViTv2-S takes {middle['step']:.2f} s a clip, its target {1000 * middle['target']:.1f} ms")
    return middle["target"] / middle["step"]


def once(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def report(seconds: dict[str, list[float]], clips: int, device: torch.device, *, share: float, keep: bool) -> float:
    """Print and keep the comparison; returns the lowest ratio with all tokens."""
    middle = medians(seconds)
    ratios = {name: middle[name] / middle["tubelet"] for name in ("plain", "skimage")}
    wanted = {name: middle[name] / middle["tubelet, 40 %"] for name in ("plain", "skimage")}
    for name, value in middle.items():
        print(f"{name:14} {1000 * value / clips:9.2f} ms a clip  quarters within {spread(seconds[name]):.0%}")
    for name in ratios:
        print(f"{name:14} {ratios[name]:.2f} times the time with all tokens, {wanted[name]:.2f} times with 40 %")
    print(f"the target takes {share:.2%} of a step of MViTv2-S (at most 3 %)")
    if keep:
        record: dict[str, Any] = {
            "what": f"HOG rows, {FRAMES}x{SIZE}x{SIZE}, one frame of a tubelet, cells of 8, 9 bins, three colours",
            "clips": clips,
            "milliseconds_per_clip": {name: 1000 * value / clips for name, value in middle.items()},
            "spread": {name: spread(values) for name, values in seconds.items()},
            "ratios_all_tokens": ratios,
            "ratios_40_percent": wanted,
            "share_of_mvitv2_s_step": share,
        }
        append("hog", {**facts(device), **record})
    return min(ratios.values())


if __name__ == "__main__":
    main()
