"""Small real work with a stop-watch: a matrix product, a decoded file, a training step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch

from tubelet.data.synthetic.videos import write_video
from tubelet.masks import MaskRules, Tube, draw_mask
from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.rng import generator
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import Batch, Clips, ClipShape, Mask
from tubelet.video.read.file import frames

CLIP: Final = ClipShape(frames=16, size=64)
BATCH: Final = 8


def matmul_trial(dtype: torch.dtype, size: int = 768) -> float:
    """Seconds of one square matrix product on the processor, the best of a few."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    return _best(lambda: left @ right, tries=4)


def decode_trial() -> str:
    """Write a small H.264 file, read it back by index, check what came; says how fast."""
    ramp = np.repeat(np.arange(20, 212, 6, dtype=np.uint8), 240 * 320 * 3).reshape(32, 240, 320, 3)
    wanted = np.arange(0, 32, 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.mp4"
        write_video(ramp, path, fps=30)
        started = time.perf_counter()
        read = frames(path, wanted)
        seconds = time.perf_counter() - started
    if len(read) != len(wanted) or not np.all(np.diff(read.mean(axis=(1, 2, 3))) > 0):
        raise RuntimeError("the frames of an H.264 file came back wrong")
    return f"16 of 32 frames of H.264, 320x240, in {1000 * seconds:.0f} ms"


def step_trial() -> str:
    """Forward, backward and update of a tiny masked autoencoder on the best device; says how fast."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = MaskedAutoencoderSpec(
        encoder=ViTSpec(width=192, depth=4, heads=3), decoder=DecoderSpec(width=96, depth=1, heads=3)
    )
    with torch.random.fork_rng(devices=[]):
        method = spec.build(CLIP, NormalisedPixels()).to(device)
    optimiser = torch.optim.AdamW(method.parameters(), lr=1e-4)
    batch = _random_batch(method).to(device)

    def step() -> float:
        with torch.autocast(device.type, torch.bfloat16):
            loss = method(batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.detach())

    seconds = _best(step, tries=3)
    if not np.isfinite(step()):
        raise RuntimeError("the loss of the test step is not finite")
    return f"{BATCH / seconds:.0f} clips/s on {device.type} (tiny ViT, 16 frames of 64x64, bf16)"


def _random_batch(method: MaskedAutoencoder) -> Batch:
    rng = generator(0)
    video = torch.from_numpy(rng.integers(0, 256, (BATCH, 3, CLIP.frames, CLIP.size, CLIP.size), dtype=np.uint8))
    grid = method.encoder.grid
    rules = MaskRules(Tube(ratio=0.75))
    masks = torch.cat([draw_mask(rules, grid, rng).stacked() for _ in range(BATCH)])
    return Batch({"video": Clips(video, torch.arange(BATCH))}, {"video": Mask.unstacked(masks).split()})


def _best(work: Callable[[], object], tries: int) -> float:
    """Seconds of the fastest try, after one to warm up."""
    work()
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
