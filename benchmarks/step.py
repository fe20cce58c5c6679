"""A pre-training step (forward, loss, backward) against `transformers`, same weights, same loss, same precision.

python benchmarks/step.py           both precisions, 9 repeats, appended to results/step.jsonl
python benchmarks/step.py --quick   bf16 alone, 3 repeats, nothing appended
python benchmarks/step.py --dual    our step with dual masking against ours without (benchmarks/dual.py)
The peer runs with SDPA and with its own attention; the better of the two counts. Ends with `ratio N.NN`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from common import append, facts, interleaved, matmul_peak, medians, spread
from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.nn.pixels import IMAGENET_MEAN, IMAGENET_STD
from tubelet.recipe import PretrainRecipe
from tubelet.recipes import RECIPES
from tubelet.rng import generator, step_rng
from tubelet.types import Batch, Clips, Mask
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.export.huggingface import to_huggingface

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SIZES: Final = {"s": "videomae-s-k400-1600-pretrain", "b": "videomae-b-k400-1600-pretrain"}
TOLERANCE: Final = {"fp32": 1e-5, "bf16": 1e-2}
"""Largest relative difference between the two losses."""


def main() -> None:
    options = read_options()
    if options.dual:
        from dual import run  # it needs this file

        run(options)
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    method, batch, pixels, hidden = ours(options.size, options.batch, device)
    peers = {name: peer(method, name, device) for name in ("sdpa", "eager")}
    ratios = {}
    for precision in options.precision:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32

        def step(loss_of: Callable[[], Tensor], module: torch.nn.Module, dtype: torch.dtype = dtype) -> float:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
                loss = loss_of()
            loss.backward()
            module.zero_grad(set_to_none=True)
            return float(loss.detach())

        work: dict[str, Callable[[], float]] = {"tubelet": lambda: step(lambda: method(batch).loss, method)}
        for name, module in peers.items():
            work[name] = lambda module=module: step(  # type: ignore[misc]
                lambda: module(pixels, bool_masked_pos=hidden).loss, module
            )
        losses = {name: run() for name, run in work.items()}
        check(losses, TOLERANCE[precision])
        seconds = interleaved(work, repeats=options.repeats, device=device)
        ratios[precision] = report(losses, seconds, precision, options, device=device)
    print(f"ratio {next(iter(ratios.values())):.2f}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dual", action="store_true", help="dual masking against decoding all hidden tokens")
    parser.add_argument("--size", choices=SIZES, default="b")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--precision", nargs="+", choices=list(TOLERANCE), default=["bf16", "fp32"])
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.precision = 3, ["bf16"]
    return options


def ours(size: str, clips: int, device: torch.device) -> tuple[MaskedAutoencoder, Batch, Tensor, Tensor]:
    """Our method with seeded weights, a batch for it, and the same batch as the peer wants it."""
    recipe: Any = RECIPES[SIZES[size]]()
    with step_rng(0, 0):
        method = recipe.model.build(recipe.clip, recipe.target).to(device).train()
        for name, value in method.named_parameters():
            if name.endswith("bias"):
                value.data.normal_(std=0.02)  # so that a lost bias would show in the loss
    assert isinstance(method, MaskedAutoencoder)
    rng = generator(0)
    shape = (clips, 3, recipe.clip.frames, recipe.clip.size, recipe.clip.size)
    video = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)).to(device)
    hidden = torch.from_numpy(np.stack([recipe.mask(method.encoder.grid, rng) for _ in range(clips)])).to(device)
    batch = Batch({"video": Clips(video, torch.arange(clips, device=device))}, {"video": Mask(hidden, hidden).split()})
    mean, std = (torch.tensor(x, device=device).view(1, 3, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = ((video.float() / 255 - mean) / std).transpose(1, 2).contiguous()
    return method, batch, pixels, hidden.flatten(1)


def peer(method: MaskedAutoencoder, attention: str, device: torch.device) -> Any:
    """`VideoMAEForPreTraining` with the weights of ours, through the folder that the export writes."""
    from transformers import VideoMAEForPreTraining

    decoder = method.decoder
    first: Any = decoder.blocks[0]
    spec = DecoderSpec(width=first.attention.width, depth=len(decoder.blocks), heads=first.attention.heads)
    model = MaskedAutoencoderSpec(encoder=method.encoder.spec, decoder=spec)
    recipe = PretrainRecipe(name="benchmark", clip=method.encoder.clip, model=model)
    with tempfile.TemporaryDirectory() as folder:
        to_huggingface(Checkpoint(Path(folder), "benchmark", method.state_dict(), recipe), Path(folder) / "peer")
        module: Any = VideoMAEForPreTraining.from_pretrained(Path(folder) / "peer", attn_implementation=attention)
    return module.to(device).train()


def check(losses: dict[str, float], tolerance: float) -> None:
    """Nothing is timed before the losses agree."""
    for name, loss in losses.items():
        difference = abs(loss - losses["tubelet"]) / losses["tubelet"]
        if not difference <= tolerance:
            raise SystemExit(f"losses differ: {name} {loss}, tubelet {losses['tubelet']} (relative {difference:.1e})")


def report(
    losses: dict[str, float],
    seconds: dict[str, list[float]],
    precision: str,
    options: argparse.Namespace,
    *,
    device: torch.device,
) -> float:
    """Print and keep one comparison; returns how many times as fast ours is."""
    middle = medians(seconds)
    best = min(name for name in middle if name != "tubelet" and middle[name] == min(middle["sdpa"], middle["eager"]))
    ratio = middle[best] / middle["tubelet"]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for name, value in middle.items():
        print(
            f"{precision}  {name:8} {options.batch / value:7.3f} clips/s  {value:7.3f} s a step  "
            f"quarters within {spread(seconds[name]):.0%}  loss {losses[name]:.6f}"
        )
    print(f"{precision}  {ratio:.2f} times the clips/s of transformers ({best})", flush=True)
    if not options.quick:
        record = {
            **facts(device),
            "what": f"pre-training step, ViT-{options.size.upper()}, 16x224x224, tube 0.9",
            "precision": precision,
            "batch": options.batch,
            "clips_per_second": {name: options.batch / value for name, value in middle.items()},
            "spread": {name: spread(values) for name, values in seconds.items()},
            "losses": losses,
            "matmul_flops_per_second": matmul_peak(device, dtype),
            "peer": f"transformers, {best} attention",
            "ratio": ratio,
        }
        append("step", record)
    return ratio


if __name__ == "__main__":
    main()
