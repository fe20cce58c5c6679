"""Classification forward: tubelet against transformers, on the same weights, at the same precision.

    python benchmarks/encode.py            ViT-B, 16 x 224 x 224, batches of 4 and 1, fp32 and bf16
    python benchmarks/encode.py --quick    ViT-S, batch 1, few repeats

Each side may use the best of its ways. tubelet: `tubelet.load(...).classify`. transformers: attention by sdpa or eager,
and for bf16 its weights converted or autocast. Outputs are compared before anything is timed: every side's largest
difference from transformers' fp32, over the largest logit, is at most 1e-5 in fp32 and 2e-2 in bf16. tubelet starts
from bytes and normalises them within the time; transformers is given clips that are normalised already.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
# before transformers is loaded

import torch
import transformers
from torch import Tensor

import tubelet
from common import append, facts, fastest, interleaved, spread
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.pixels import IMAGENET_MEAN, IMAGENET_STD
from tubelet.recipe import FinetuneRecipe
from tubelet.rng import step_rng
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.export.huggingface import to_huggingface

Forward = Callable[[], Tensor]
Precision = Literal["fp32", "bf16"]
CLASSES: Final = 400
TOLERANCE: Final = {"fp32": 1e-5, "bf16": 2e-2}
MODELS: Final = {"ViT-B": ViTSpec(), "ViT-S": ViTSpec(width=384, heads=6)}


@dataclass(frozen=True)
class Case:
    """One line of the results."""

    model: str
    precision: Precision
    batch: int
    repeats: int


def main() -> None:
    options = read_options()
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32 on both sides
    model, batches, repeats = ("ViT-S", [1], 3) if options.quick else ("ViT-B", [4, 1], options.repeats)
    cases = [Case(model, precision, batch, repeats) for precision in options.precision for batch in batches]
    with tempfile.TemporaryDirectory() as folder:
        weights = write_weights(Path(folder) / "model", MODELS[model])
        ratios = [measure(case, weights, device, keep=not options.quick) for case in cases]
    print(f"ratio {min(ratios):.2f}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, few repeats, nothing is recorded")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU where there is one")
    parser.add_argument("--precision", nargs="+", choices=list(TOLERANCE), default=list(TOLERANCE))
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--threads", type=int, help="of the CPU; default: what torch takes")
    return parser.parse_args()


def write_weights(out: Path, encoder: ViTSpec) -> Path:
    """A folder of transformers, with random weights and no bias at zero."""
    spec = ClassifierSpec(encoder=encoder, norm_eps=1e-5, init_scale=1.0)
    recipe = FinetuneRecipe(name="benchmark", model=spec, classes=CLASSES)
    with step_rng(0, 0):
        classifier = spec.build(recipe.clip, CLASSES)
        for name, value in classifier.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(value, std=0.1)
    to_huggingface(Checkpoint(out, "random", dict(classifier.state_dict()), recipe), out)
    return out


def measure(case: Case, weights: Path, device: torch.device, *, keep: bool) -> float:
    """Compare, time, print and record one case; how many times as fast tubelet is."""
    video = clips(case.batch, device)
    with torch.inference_mode():
        ours = our_forward(weights, case, video, device)
        theirs = their_forwards(weights, case, video, device)
        difference = compare(ours(), theirs, weights, case, video)
        seconds = interleaved({"tubelet": ours, **theirs}, repeats=case.repeats, device=device)
    mine = seconds.pop("tubelet")
    best = fastest(seconds)
    medians = statistics.median(mine), statistics.median(seconds[best])
    ratio = medians[1] / medians[0]
    line: dict[str, Any] = {
        **facts(device),
        "transformers": transformers.__version__,
        "model": f"{case.model} 16x224x224",
        "precision": case.precision,
        "batch": case.batch,
        "repeats": case.repeats,
        "tubelet_clips_per_second": round(case.batch / medians[0], 3),
        "transformers_clips_per_second": round(case.batch / medians[1], 3),
        "transformers_way": best,
        "ratio": round(ratio, 3),
        "spread": [round(spread(mine), 3), round(spread(seconds[best]), 3)],
        "difference": float(f"{difference:.1e}"),
    }
    print(
        f"{case.model} {case.precision} batch {case.batch}: tubelet {line['tubelet_clips_per_second']} clips/s, "
        f"transformers ({best}) {line['transformers_clips_per_second']}, ratio {ratio:.2f}, "
        f"spread {line['spread']}, outputs within {difference:.1e}",
        flush=True,
    )
    if keep:
        append("encode", line)
    return ratio


def clips(batch: int, device: torch.device) -> Tensor:
    """Bytes of noise."""
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, 16, 224, 224), dtype=torch.uint8, generator=rng).to(device)


def normalised(video: Tensor) -> Tensor:
    """What transformers takes: floats, frames before colours."""
    mean, std = (torch.tensor(values, device=video.device).view(3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((video / 255.0 - mean) / std).transpose(1, 2).contiguous()


def our_forward(weights: Path, case: Case, video: Tensor, device: torch.device) -> Forward:
    model = tubelet.load(weights, device="cuda" if device.type == "cuda" else "cpu", precision=case.precision)
    return lambda: model.classify(video).logits


def their_forwards(weights: Path, case: Case, video: Tensor, device: torch.device) -> dict[str, Forward]:
    """All the ways of transformers, by their names."""
    pixels = normalised(video)
    ways: dict[str, Forward] = {}
    for attention in ("sdpa", "eager"):
        model = their_model(weights, attention).to(device)
        if case.precision == "fp32":
            ways[attention] = _plain(model, pixels)
            continue
        if attention == "sdpa" or device.type == "cuda":  # a second copy of eager on a CPU only costs time
            ways[f"{attention}, autocast"] = _autocast(model, pixels)
        half = their_model(weights, attention).to(device, torch.bfloat16)
        ways[f"{attention}, bf16 weights"] = _plain(half, pixels.to(torch.bfloat16))
    return ways


def their_model(weights: Path, attention: str) -> Any:
    kind = transformers.VideoMAEForVideoClassification
    model: Any = kind.from_pretrained(weights, attn_implementation=attention)
    return model.eval()


def compare(ours: Tensor, theirs: dict[str, Forward], weights: Path, case: Case, video: Tensor) -> float:
    """The largest difference over the largest logit; SystemExit where any side is further off than TOLERANCE."""
    exact = their_model(weights, "sdpa").to(video.device)(normalised(video)).logits
    sides = {"tubelet": ours, **{name: forward() for name, forward in theirs.items()}}
    found = {name: float((logits.float() - exact).abs().max() / exact.abs().max()) for name, logits in sides.items()}
    far = {name: value for name, value in found.items() if not value <= TOLERANCE[case.precision]}
    if far:
        raise SystemExit(f"{case}: outputs differ from transformers' fp32 by {far}; nothing was timed")
    return found["tubelet"]


def _plain(model: Any, pixels: Tensor) -> Forward:
    return lambda: model(pixels).logits


def _autocast(model: Any, pixels: Tensor) -> Forward:
    def forward() -> Tensor:
        with torch.autocast(pixels.device.type, torch.bfloat16):
            logits: Tensor = model(pixels).logits
        return logits

    return forward


if __name__ == "__main__":
    main()
