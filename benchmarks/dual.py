"""Dual masking (VideoMAE V2, running cell 0.5) against decoding all hidden tokens: time and memory of a step, ViT-B.

python benchmarks/step.py --dual           bf16 and fp32, 9 repeats, appended to results/dual.jsonl
python benchmarks/step.py --dual --quick   bf16 alone, 3 repeats, nothing appended
Equal weights, clips and tube masks. Before anything is timed, the counts must be those of the paper (1,408 decoded
tokens, or 784 with 704 scored), and the losses near 1, as of fresh weights on noise. Peak memory, with AdamW, comes
from a process of its own for each side. Ends with `memory N.NN` and `ratio N.NN`: full over dual.
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

from common import append, facts, interleaved, medians, spread
from memory import STEPS, built, step, warm
from tubelet.masks import All, RunningCell, draw_mask
from tubelet.methods.autoencoder import MaskedAutoencoder
from tubelet.plan.count.flops import count_flops
from tubelet.plan.count.step import plan_step
from tubelet.plan.measure.real_steps import GIVES_BACK, forget_peak, resident_bytes
from tubelet.recipe import PretrainRecipe
from tubelet.recipes.videomae import pretrain_b800_k400
from tubelet.rng import generator
from tubelet.spec import replace
from tubelet.types import Batch, Clips, Mask

RULES: Final = {"full": All(), "dual": RunningCell(ratio=0.5)}
PAPER: Final = {"full": 35.48, "dual": 25.87}
"""GFLOPs of a clip (arXiv:2303.16727, table 1); a multiplication with its addition counts as one there."""
COUNTS: Final = {"full": (1408, 1408), "dual": (784, 704)}


def run(options: argparse.Namespace) -> None:
    """Both sides in turn; `options` are those of `step.py`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for precision in options.precision:
        work = {side: step_of(side, options.batch, device, precision) for side in RULES}
        seconds = interleaved(work, repeats=options.repeats, device=device)
        middle = medians(seconds)
        peaks = {side: peak_in_process(side, options.batch, precision) for side in RULES}
        flops = {side: count_flops(plan_step(recipe_of(side))).forward / 2e9 for side in RULES}
        for side in RULES:
            print(
                f"{precision}  {side:4} {options.batch / middle[side]:7.3f} clips/s  {middle[side]:7.3f} s a step  "
                f"quarters within {spread(seconds[side]):.0%}  peak {peaks[side] / 1e9:.2f} GB  "
                f"{flops[side]:.2f} G multiply-adds a clip forward (paper {PAPER[side]:.2f})"
            )
        ratios = {name: one["full"] / one["dual"] for name, one in (("time", middle), ("memory", peaks))}
        print(f"{precision}  memory {ratios['memory']:.2f}\n{precision}  ratio {ratios['time']:.2f}", flush=True)
        if not options.quick:
            record = {
                **facts(device),
                "what": "pre-training step, ViT-B, 16x224x224, tube 0.9: all hidden tokens against running cell 0.5",
                "precision": precision,
                "batch": options.batch,
                "clips_per_second": {side: options.batch / value for side, value in middle.items()},
                "spread": {side: spread(values) for side, values in seconds.items()},
                "peak_bytes": peaks,
                "forward_gflops": flops,
                "ratio": ratios,
            }
            append("dual", record)


def recipe_of(side: str) -> PretrainRecipe:
    return replace(pretrain_b800_k400(), decode=RULES[side])


def batch_of(side: str, clips: int, device: torch.device) -> Batch:
    """The same clips and hidden tokens on both sides."""
    recipe, rng = recipe_of(side), generator(0)
    shape = (clips, 3, recipe.clip.frames, recipe.clip.size, recipe.clip.size)
    video = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    grid = recipe.clip.grid(recipe.model.encoder.cube)
    masks = [draw_mask(recipe, grid, generator(0, clip)).stacked() for clip in range(clips)]
    split = Mask.unstacked(torch.cat(masks)).split()
    counts = (split.wanted.shape[1], int(split.weight[0].sum()))
    assert counts == COUNTS[side], counts
    return Batch({"video": Clips(video, torch.arange(clips))}, {"video": split}).to(device)


def step_of(side: str, clips: int, device: torch.device, precision: str) -> Callable[[], float]:
    """Forward, loss, backward."""
    method: MaskedAutoencoder = built(recipe_of(side)).to(device).train()
    batch = batch_of(side, clips, device)

    def take() -> float:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = method(batch).loss
        loss.backward()
        method.zero_grad(set_to_none=True)
        return float(loss.detach())

    if not 0.5 < take() < 3.0:
        raise SystemExit(f"{side}: the loss of fresh weights on noise is not near 1")
    return take


def peak_in_process(side: str, clips: int, precision: str) -> int:
    """Bytes at the peak of a step with AdamW, in a fresh process."""
    command = [sys.executable, __file__, side, str(clips), precision]
    done = subprocess.run(command, env={**os.environ, **GIVES_BACK}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return int(found["peak_bytes"])


def measure_peak(side: str, clips: int, precision: str) -> int:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    warm(device, precision)
    before = resident_bytes(peak=False)
    method, batch = built(recipe_of(side)).to(device).train(), batch_of(side, clips, device)
    forget_peak()
    adamw = torch.optim.AdamW(method.parameters(), lr=1e-6, fused=True)
    for _ in range(STEPS):
        step(lambda: method(batch).loss, adamw, device, precision)
    return int(torch.cuda.max_memory_allocated()) if device.type == "cuda" else resident_bytes(peak=True) - before


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps({"peak_bytes": measure_peak(sys.argv[1], int(sys.argv[2]), sys.argv[3])}))
    else:
        print("python benchmarks/step.py --dual")
