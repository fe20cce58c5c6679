"""MaskFeat's encoder in pre-training (MViTv2-S, 16x224x224) with fused attention, against a plain form of itself.

python benchmarks/mvit.py           bf16 and fp32, 2 clips, 7 repeats, appended to results/mvit.jsonl
python benchmarks/mvit.py --quick   bf16 alone, 1 clip, 2 repeats, nothing appended
The plain form holds all logits, the bias of relative positions and the weights in memory; everything else is the same
module with the same weights. Tokens and gradients are compared first. Time: both in turn. Memory: each in a process of
its own, the peak of forward and backward less what was held before. Ends with the ratio of times in bf16,
`ratio N.NN`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor

from common import append, facts, interleaved, medians, spread
from tubelet.models.mvit import layers as pooling_attention
from tubelet.models.mvit.model import MVIT_S, MViT
from tubelet.plan.measure.real_steps import GIVES_BACK, forget_peak, resident_bytes
from tubelet.rng import generator, step_rng
from tubelet.spec import replace
from tubelet.types import ClipShape

FORMS: Final = {"fused": pooling_attention.attend_fused, "plain": pooling_attention.attend_plain}
TOLERANCE: Final = {"fp32": 1e-3, "bf16": 5e-2}
"""Largest difference of tokens and of the first gradient, as a share of their norm."""


def main() -> None:
    options = read_options()
    if options.form is not None:
        print(json.dumps(peak_bytes(options)))
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ratios = {}
    for precision in options.precision:
        encoder, video, hidden = made_up(options.batch, device)
        difference = check(encoder, video, hidden, precision)

        def one(form: str, precision: str = precision) -> None:
            with attention(form):
                step(encoder, video, hidden, precision)  # noqa: B023 - run before the next turn

        work = {form: lambda form=form: one(form) for form in FORMS}
        seconds = interleaved(work, repeats=options.repeats, device=device)
        peaks = {form: in_process(form, precision, options) for form in FORMS}
        middle = medians(seconds)
        ratios[precision] = middle["plain"] / middle["fused"]
        for form in FORMS:
            print(f"{precision} {form}: {middle[form]:.2f} s, {peaks[form] / 1e9:.2f} GB", flush=True)
        times, less = ratios[precision], peaks["plain"] / peaks["fused"]
        print(f"{precision}: plain takes {times:.2f} times as long and {less:.2f} times the memory")
        if not options.quick:
            record = {
                **facts(device),
                "what": "forward and backward of MViTv2-S in MaskFeat's pre-training, 16x224x224",
                "precision": precision,
                "batch": options.batch,
                "seconds": middle,
                "spread": {form: spread(values) for form, values in seconds.items()},
                "peak_bytes": peaks,
                "difference": difference,
                "ratio": ratios[precision],
            }
            append("mvit", record)
    print(f"ratio {next(iter(ratios.values())):.2f}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--precision", nargs="+", choices=list(TOLERANCE))
    parser.add_argument("--form", choices=list(FORMS), help="measure the memory of one form here, print JSON")
    options = parser.parse_args()
    options.batch = options.batch or (1 if options.quick else 2)
    options.repeats = options.repeats or (2 if options.quick else 7)
    options.precision = options.precision or (["bf16"] if options.quick else ["bf16", "fp32"])
    return options


def made_up(clips: int, device: torch.device) -> tuple[MViT, Tensor, Tensor]:
    """The encoder with seeded weights, clips of noise, and 40 % hidden cells of 32 pixels."""
    clip = ClipShape()
    with step_rng(0, 0):
        spec = replace(MVIT_S, widen_in="mlp", last_stage_stride=1)
        encoder = spec.build(clip, final_norm=False, masked=True)
    assert isinstance(encoder, MViT)
    rng = generator(0)
    video = rng.integers(0, 256, (clips, 3, clip.frames, clip.size, clip.size), dtype="uint8")
    hidden = rng.random((clips, 8, 7, 7)) < 0.4
    return encoder.to(device), torch.from_numpy(video).to(device), torch.from_numpy(hidden).to(device)


@contextmanager
def attention(form: str) -> Iterator[None]:
    """Inside, attention is computed in this form."""
    pooling_attention.attend_fused = FORMS[form]
    try:
        yield
    finally:
        pooling_attention.attend_fused = FORMS["fused"]


def step(encoder: MViT, video: Tensor, hidden: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Tokens, and the gradient that comes out last."""
    with torch.autocast(video.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        tokens = encoder(video, hidden=hidden)
    tokens.float().square().mean().backward()
    gradient = encoder.patch_embed.weight.grad
    assert gradient is not None
    encoder.zero_grad(set_to_none=True)
    return tokens.detach().float(), gradient


def check(encoder: MViT, video: Tensor, hidden: Tensor, precision: str) -> float:
    """The larger of both differences."""
    found = []
    for form in FORMS:
        with attention(form):
            found.append(step(encoder, video, hidden, precision))
    largest = max(float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(*found, strict=True))
    if not largest <= TOLERANCE[precision]:
        raise SystemExit(f"{precision}: the forms differ by {largest:.1e} of the norm")
    return largest


def in_process(form: str, precision: str, options: argparse.Namespace) -> int:
    """`peak_bytes` in a fresh process."""
    command = [sys.executable, __file__, "--form", form, "--batch", str(options.batch), "--precision", precision]
    done = subprocess.run(command, env={**os.environ, **GIVES_BACK}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{form}: {done.stderr.strip().splitlines()[-1]}")
    found: int = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_bytes(options: argparse.Namespace) -> int:
    """Of two steps, less what was held before; on a GPU PyTorch's peak."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder, video, hidden = made_up(options.batch, device)
    before = resident_bytes(peak=False)
    forget_peak()
    with attention(options.form):
        for _ in range(2):
            step(encoder, video, hidden, options.precision[0])
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else resident_bytes(peak=True) - before


if __name__ == "__main__":
    main()
