"""Memory of a pre-training step by number of frames, against `transformers`: same weights, loss, precision, optimiser.

python benchmarks/memory.py           ViT-B, 8, 16, 32 and 64 frames of 224 x 224, appended to results/memory.jsonl
python benchmarks/memory.py --quick   ViT-S, 8 and 16 frames, nothing appended
Each figure comes from a process of its own: forward, loss, backward and AdamW, twice; its peak, less what it held
before the model (on a GPU: PyTorch's peak). On a processor the allocator gives pieces back at once
(MALLOC_MMAP_THRESHOLD_), so that the peak is what tensors take. Both sides use SDPA where they do by themselves; the
peer gets normalised floats, ours bytes, as each wants them. Ends with the smallest ratio, as `ratio N.NN`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from common import append, facts, installed
from peer import TOLERANCE, check, peer
from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.nn.pixels import IMAGENET_MEAN, IMAGENET_STD
from tubelet.plan.measure.real_steps import GIVES_BACK, forget_peak, resident_bytes
from tubelet.recipe import PretrainRecipe, override
from tubelet.recipes.videomae import pretrain_b800_k400, pretrain_s1600_k400
from tubelet.rng import generator, step_rng
from tubelet.types import Batch, Clips, Mask

SIZES: Final = {"s": pretrain_s1600_k400, "b": pretrain_b800_k400}
SIDES: Final = ("tubelet", "transformers")
STEPS: Final = 2
"""The second has all states of the optimiser."""


def main() -> None:
    options = read_options()
    if options.side is not None:
        print(json.dumps(measure(options)))
        return
    if installed("transformers") is None:
        print("skipped: transformers is not installed (pip install transformers)")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ratios = []
    for frames in options.frames:
        found = {side: in_process(side, frames, options) for side in SIDES}
        check({side: one["loss"] for side, one in found.items()}, TOLERANCE[options.precision])
        peaks = {side: one["peak_bytes"] for side, one in found.items()}
        ratios.append(peaks["transformers"] / peaks["tubelet"])
        shown = "  ".join(f"{side} {peak / 1e9:.2f} GB" for side, peak in peaks.items())
        print(f"{frames:3} frames  {shown}  {ratios[-1]:.2f} times as much", flush=True)
        if not options.quick:
            record = {
                **facts(device),
                "what": f"peak of a pre-training step, ViT-{options.size.upper()}, 224x224, tube 0.9, AdamW",
                "frames": frames,
                "batch": options.batch,
                "precision": options.precision,
                "peak_bytes": peaks,
                "losses": {side: one["loss"] for side, one in found.items()},
                "ratio": ratios[-1],
            }
            append("memory", record)
    print(f"ratio {min(ratios):.2f}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--size", choices=SIZES)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, nargs="+")
    parser.add_argument("--precision", choices=list(TOLERANCE), default="bf16")
    parser.add_argument("--side", choices=SIDES, help="measure one side here, print JSON")
    options = parser.parse_args()
    options.size = options.size or ("s" if options.quick else "b")
    options.frames = options.frames or ([8, 16] if options.quick else [8, 16, 32, 64])
    return options


def in_process(side: str, frames: int, options: argparse.Namespace) -> dict[str, Any]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--side", side, "--frames", str(frames), "--size", options.size]
    command += ["--batch", str(options.batch), "--precision", options.precision]
    done = subprocess.run(command, env={**os.environ, **GIVES_BACK}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side}, {frames} frames: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Loss of the first step, and the peak of all."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = override(SIZES[options.size](), [f"clip.frames={options.frames[0]}"])
    warm(device, options.precision)
    before = resident_bytes(peak=False)
    module, loss_of = (ours if options.side == "tubelet" else theirs)(recipe, options.batch, device)
    forget_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    adamw = torch.optim.AdamW(module.parameters(), lr=1e-6, fused=True)
    losses = [step(loss_of, adamw, device, options.precision) for _ in range(STEPS)]
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident_bytes(peak=True) - before
    return {"loss": losses[0], "peak_bytes": peak}


def step(loss_of: Callable[[], Tensor], adamw: torch.optim.Optimizer, device: torch.device, precision: str) -> float:
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        loss = loss_of()
    loss.backward()
    adamw.step()
    adamw.zero_grad(set_to_none=True)
    return float(loss.detach())


def warm(device: torch.device, precision: str) -> None:
    """Load kernels and what PyTorch imports late, so that they are not counted."""
    linear = nn.Linear(64, 64, device=device)
    adamw = torch.optim.AdamW(linear.parameters(), fused=True)
    step(lambda: linear(torch.ones(64, 64, device=device)).float().square().mean(), adamw, device, precision)


def ours(recipe: PretrainRecipe, clips: int, device: torch.device) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Our method with seeded weights, and its loss of a batch."""
    method = built(recipe).to(device).train()
    video, hidden = made_up(recipe, clips)
    batch = Batch({"video": Clips(video, torch.arange(clips))}, {"video": Mask(hidden, hidden).split()}).to(device)
    return method, lambda: method(batch).loss


def theirs(recipe: PretrainRecipe, clips: int, device: torch.device) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The peer with the same weights, and its loss of the same batch."""
    video, hidden = made_up(recipe, clips)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = ((video.float() / 255 - mean) / std).transpose(1, 2).contiguous().to(device)
    places = hidden.flatten(1).to(device)
    trained = peer(built(recipe), "sdpa", device)
    return trained, lambda: trained(pixels, bool_masked_pos=places).loss


def built(recipe: PretrainRecipe) -> MaskedAutoencoder:
    assert isinstance(recipe.model, MaskedAutoencoderSpec)
    with step_rng(0, 0):
        return recipe.model.build(recipe.clip, recipe.target)


def made_up(recipe: PretrainRecipe, clips: int) -> tuple[Tensor, Tensor]:
    """Bytes of clips, and which tokens are hidden."""
    rng, clip = generator(0), recipe.clip
    video = rng.integers(0, 256, (clips, 3, clip.frames, clip.size, clip.size), dtype=np.uint8)
    grid = clip.grid(recipe.model.encoder.cube)
    hidden = np.stack([recipe.mask(grid, rng) for _ in range(clips)])
    return torch.from_numpy(video), torch.from_numpy(hidden)


if __name__ == "__main__":
    main()
