"""A second, plain form of Video Swin and BEVT's streams: functions of their weights, all pairs of tokens in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
Side = tuple[int, ...]
EPS = 1e-5


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], EPS)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def pairs(places: Tensor) -> tuple[Tensor, Tensor]:
    return places[:, None], places[None, :]


def attention(w: Weights, name: str, x: Tensor, *, heads: int, whole: Side, flat: bool, odd: bool) -> Tensor:
    """`x` is [B,t,h,w,C]; `whole` is the window of the table; `flat` is BEVT's way with images; `odd` blocks shift."""
    grid = x.shape[1:4]
    window: Side = (1, *whole[1:])
    apart: Side = (0, whole[1] // 2, whole[2] // 2)
    shift: Side = apart if odd else (0, 0, 0)
    if not flat:
        window = tuple(min(side, most) for side, most in zip(grid, whole, strict=True))
        shift = tuple(most // 2 if odd and side > most else 0 for side, most in zip(grid, whole, strict=True))
        apart = shift
    padded = [math.ceil(side / step) * step for side, step in zip(grid, window, strict=True)]
    x = F.pad(x, [0, 0, *itertools.chain(*((0, p - s) for p, s in reversed(list(zip(padded, grid, strict=True)))))])
    places = torch.cartesian_prod(*[torch.arange(side) for side in padded])
    logits = torch.zeros(len(places), len(places))
    inside = torch.zeros(len(places), dtype=torch.long)
    for axis in range(3):
        rolled = (places[:, axis] - shift[axis]) % padded[axis]
        mine, other = pairs(rolled // window[axis])
        far = rolled >= padded[axis] - apart[axis]
        here, there = pairs(far)
        logits = logits.masked_fill(mine != other, -math.inf)
        logits = torch.where((here != there) & (logits == 0), torch.tensor(-100.0), logits)
        inside = inside * window[axis] + rolled % window[axis]
    rows = torch.zeros(len(places), len(places), dtype=torch.long)
    for axis in range(3):  # the first places of a whole window, wherever those of this one are
        queries, keys = pairs(inside // math.prod(whole[axis + 1 :]) % whole[axis])
        rows = rows * (2 * whole[axis] - 1) + queries - keys + whole[axis] - 1
    bias = w[f"{name}.relative_position_bias_table"][rows].permute(2, 0, 1) + logits
    q, k, v = linear(w, f"{name}.qkv", x.flatten(1, 3)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    mixed = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]) + bias).softmax(-1) @ v
    out = linear(w, f"{name}.proj", mixed.transpose(1, 2).flatten(2)).unflatten(1, padded)
    cut: Tensor = out[:, : grid[0], : grid[1], : grid[2]]
    return cut


def merged(w: Weights, name: str, x: Tensor) -> Tensor:
    x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
    corners = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    return linear(w, f"{name}.reduction", norm(w, f"{name}.norm", torch.cat(corners, -1)))


def stages(
    w: Weights, video: Tensor, backbone: dict[str, Any], *, hidden: Tensor | None = None, flat: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """[B,t,h,w,C] of each stage, before and after merging. `video` is normalised; with `flat` it has one frame."""
    embed = "patch_embed_2d" if flat else "patch_embed"
    kernel = w[f"{embed}.proj.weight"].unsqueeze(2) if flat else w[f"{embed}.proj.weight"]
    ends = [-side % step for side, step in zip(video.shape[2:], kernel.shape[2:], strict=True)]
    video = F.pad(video, (0, ends[2], 0, ends[1], 0, ends[0]))
    x = F.conv3d(video, kernel, w[f"{embed}.proj.bias"], kernel.shape[2:]).movedim(1, -1)
    if backbone["patch_norm"]:
        x = norm(w, f"{embed}.norm", x)
    if hidden is not None:
        m = F.interpolate(hidden[:, None].float(), size=x.shape[1:4]).squeeze(1)[..., None]
        x = x * (1 - m) + w["mask_token"] * m
    found = []
    for stage, (blocks, heads) in enumerate(zip(backbone["depths"], backbone["num_heads"], strict=True)):
        for block in range(blocks):
            name = f"layers.{stage}.blocks.{block}"
            x = x + attention(
                w, f"{name}.attn", norm(w, f"{name}.norm1", x), heads=heads, whole=tuple(backbone["window_size"]),
                flat=flat, odd=bool(block % 2),
            )  # fmt: skip
            hidden_units = F.gelu(linear(w, f"{name}.mlp.fc1", norm(w, f"{name}.norm2", x)))
            x = x + linear(w, f"{name}.mlp.fc2", hidden_units)
        is_last = stage == len(backbone["depths"]) - 1
        after = x if is_last else merged(w, f"layers.{stage}.downsample", x)
        found.append((x, after))
        x = after
    return found


def classification(weights: Weights, video: Tensor, label: Tensor, backbone: dict[str, Any]) -> Weights:
    w = {name.removeprefix("backbone."): value for name, value in weights.items()}
    found = stages(w, video, backbone)
    features = norm(w, "norm", found[-1][1])
    logits = linear(w, "cls_head.fc_cls", features.mean((1, 2, 3)))
    outputs = {f"stage{number}": after.movedim(-1, 1) for number, (_, after) in enumerate(found)}
    outputs |= {"features": features.movedim(-1, 1), "logits": logits, "loss": F.cross_entropy(logits, label)}
    return outputs


def fused(w: Weights, normed: Callable[[Tensor], Tensor], fine: Tensor, coarse: Tensor, *, frames: int) -> Tensor:
    """BEVT's decoder: stage 3 with the upsampled stage 4, both [B,t,h,w,C], to tokens [B,N,C].

    `frames` > 0 brings back the frames of a clip; 0 is an image. `w` has the names behind `backbone.`.
    """
    fine, coarse = fine.movedim(-1, 1), coarse.movedim(-1, 1)
    if frames:
        wide, down = (
            F.conv_transpose3d(coarse, w["fpn_s.0.weight"], w["fpn_s.0.bias"], stride=(1, 2, 2)),
            "lm_down_st.0",
        )
    else:
        flat = F.conv_transpose2d(coarse[:, :, 0], w["fpn.0.weight"], w["fpn.0.bias"], stride=2)
        wide, down = flat.unsqueeze(2), "lm_down"
    joint = linear(w, down, torch.cat([fine, wide], dim=1).movedim(1, -1))
    if frames:
        step = w["fpn_t.0.weight"].shape[2]
        joint = F.conv_transpose3d(joint.movedim(-1, 1), w["fpn_t.0.weight"], w["fpn_t.0.bias"], stride=(step, 1, 1))
        assert joint.shape[2] == frames
        joint = joint.movedim(1, -1)
    return normed(joint).flatten(1, 3)


def pretraining(weights: Weights, inputs: Weights, ids: Weights, config: dict[str, Any]) -> Weights:
    """Both streams; `ids` by stream are the tokens to predict, [B,frames,h,w] or [B,h,w]."""
    w = {name.removeprefix("backbone."): value for name, value in weights.items()}
    outputs: Weights = {}
    for stream in ("video", "image"):
        flat = stream == "image"
        pixels, hidden = inputs[stream], inputs[f"{stream}_mask"]
        if flat:
            pixels, hidden = pixels.unsqueeze(2), hidden.unsqueeze(1)
        frames = 0 if flat else pixels.shape[2]
        for suffix, mask in (("_unmasked", None), ("", hidden)):
            found = stages(w, pixels, config["backbone"], hidden=mask, flat=flat)
            features = fused(w, lambda x: norm(w, "norm", x), found[-2][0], found[-1][0], frames=frames)
            outputs[f"{stream}_features{suffix}"] = features
        logits = linear(w, "cls_head.lm_head", outputs[f"{stream}_features"])
        rows = hidden.repeat_interleave(frames // hidden.shape[1], dim=1) if frames else hidden
        chosen = rows.flatten(1).bool()
        factor = config["head"]["loss_weight_2d" if flat else "loss_weight_3d"]
        outputs[f"{stream}_logits"] = logits
        outputs[f"loss_{stream}"] = factor * F.cross_entropy(logits[chosen], ids[stream].flatten(1)[chosen])
        outputs[f"{stream}_token_ids"] = ids[stream]
    return {**outputs, "loss": outputs["loss_video"] + outputs["loss_image"]}
