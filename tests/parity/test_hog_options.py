"""The parity tests of HOG run unchanged on cases of other sizes and options.

The cases are made here by a plain second implementation in float64, which is itself held against the stored one.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from cases import passes_on
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from golden import load_case

NEAR_EDGE = 1e-4


def plain_hog(frames: Tensor, bins: int, cell: int, window: int = 0) -> tuple[Tensor, Tensor]:
    """Histograms [M,C,bins,y,x] of frames [M,C,H,W], and which cells [M,C,y,x] have a pixel on an edge of bins."""
    padded = F.pad(frames.double(), (1, 1, 1, 1), mode="reflect")
    beside = padded[..., :-2] - padded[..., 2:]
    below = padded[..., :-2, :] - padded[..., 2:, :]
    across = beside[..., :-2, :] + 2 * beside[..., 1:-1, :] + beside[..., 2:, :]
    down = below[..., :-2] + 2 * below[..., 1:-1] + below[..., 2:]
    votes = across.square().add(down.square()).sqrt()
    if window:
        places = torch.arange(window).double() - (window - 1) / 2
        bell = (-0.5 * (places / (window // 2)) ** 2).exp()
        bell = bell.repeat(frames.shape[-1] // window)
        votes = votes * bell * bell[:, None]
    angle = torch.atan2(across, down) / math.pi * bins
    chosen = angle.floor().remainder(bins)
    parts = [F.avg_pool2d(votes * (chosen == k), cell) for k in range(bins)]
    near = ((angle - angle.round()).abs() < NEAR_EDGE) & (across.abs() > 1e-9)
    flat = votes < 1e-6
    risk = F.max_pool2d((near | flat).double(), cell)
    return F.normalize(torch.stack(parts, 2), dim=2).float(), risk.to(torch.uint8)


def tokens_of(maps: Tensor, cells: int, channels: int) -> Tensor:
    """[M,...,y,x] to one row for each square of cells, in raster order."""
    squares = maps.reshape(len(maps), channels, *maps.shape[-2:]).unfold(2, cells, cells).unfold(3, cells, cells)
    return squares.permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(2)


def test_the_plain_implementation_is_the_authors() -> None:
    case = load_case("case05_hog_layer")
    for name, layer in case.meta["config"]["layers"].items():
        for picture, frames in case.input.items():
            theirs = case.output[f"{picture}__{name}"]
            found, _ = plain_hog(frames, layer["nbins"], layer["pool"], layer.get("gaussian_window", 0))
            sure = (case.output[f"{picture}__{name}__edge_risk"] == 0).unsqueeze(2).expand_as(theirs)
            torch.testing.assert_close(found[sure], theirs[sure], atol=1e-5, rtol=1e-5)


def write(
    folder: Path, stem: str, config: dict[str, Any], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
) -> None:
    flat = {f"input/{name}": value.contiguous() for name, value in inputs.items()}
    flat |= {f"output/{name}": value.contiguous() for name, value in outputs.items()}
    meta = {"config": config, "tolerance_per_output": {"loss": {"atol": 1e-5, "rtol": 1e-4}}}
    save_file(flat, folder / f"{stem}.safetensors", metadata={"golden": json.dumps(meta)})


def smooth(*shape: int) -> Tensor:
    """Noise without sharp edges, as normalised pixels are."""
    *front, height, width = shape
    coarse = torch.randn(math.prod(front), 1, height // 4, width // 4)
    return F.interpolate(coarse, size=(height, width), mode="bicubic").view(shape)


def write_layer(folder: Path) -> None:
    layers = {
        "pool4": {"nbins": 9, "pool": 4},
        "gaussian": {"nbins": 9, "pool": 8, "gaussian_window": 16},
        "narrow": {"nbins": 12, "pool": 8, "gaussian_window": 4},
    }
    pictures = {"uniform": torch.rand(2, 3, 48, 48), "smooth": smooth(1, 3, 64, 64)}
    outputs: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for picture, frames in pictures.items():
            found, risk = plain_hog(frames, layer["nbins"], layer["pool"], layer.get("gaussian_window", 0))
            outputs |= {f"{picture}__{name}": found, f"{picture}__{name}__edge_risk": risk}
    write(folder, "case05_hog_layer", {"layers": layers}, pictures, outputs)


def masked_tokens(video: Tensor, mask: Tensor, cell: int, token: int, step: int) -> tuple[Tensor, Tensor]:
    """Rows and risks of the masked tokens of a batch; the mask has a cell for each token."""
    batch, _, frames, *_ = video.shape
    maps, risk = plain_hog(video[:, :, ::step].transpose(1, 2).flatten(0, 1), 9, cell)
    risk = risk.unsqueeze(2).expand_as(maps)
    hidden = mask.bool().flatten()
    rows, risks = (
        tokens_of(part.flatten(1, 2), token // cell, 27).view(batch * (frames // step) * mask[0, 0].numel(), -1)[hidden]
        for part in (maps, risk)
    )
    return rows, risks


def write_targets(folder: Path) -> None:
    """96 pixels, 6 frames, cells of 4; tokens of 3 frames; a mask as fine as the tokens, counts that differ by clip."""
    video, mask = smooth(2, 3, 6, 96, 96), (torch.rand(2, 2, 6, 6) < 0.4).long()
    rows, risk = masked_tokens(video, mask, 4, 16, 3)
    config = {"cell": 4, "frames": 6, "nbins": 9, "patch_stride_t": 3, "size": 96, "token_size": 16}
    inputs = {"video": video, "mask": mask.float()}
    write(folder, "case05_hog_target", config, inputs, {"target": rows, "edge_risk": risk})
    mask = (torch.rand(2, 3, 3, 3) < 0.4).long()
    rows, risk = masked_tokens(video, mask, 8, 32, 2)
    predictions = torch.randn(rows.shape)
    outputs = {
        "targets": rows, "targets_edge_risk": risk, "predictions": predictions,
        "predictions_all_tokens": torch.zeros(2, 27, rows.shape[1]),
        "loss": (predictions - rows).square().mean().reshape(1),
    }  # fmt: skip
    config_06 = {"resolved_MVIT": {"PATCH_STRIDE": [2, 4, 4]}}
    write(folder, "case06_maskfeat_hog", config_06, {"video": video, "mask": mask}, outputs)


def test_parity_tests_pass_on_other_sizes_and_options(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_layer(tmp_path)
        write_targets(tmp_path)
    passes_on(tmp_path, "test_hog.py")
