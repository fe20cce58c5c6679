"""A second, plain form of TimeSformer: functions of its weights, tokens in the authors' order (h, w, t)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
EPS = 1e-6


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], EPS)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def attention(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    """Among the tokens of the last but one axis."""
    q, k, v = linear(w, f"{name}.qkv", x).chunk(3, -1)
    found = []
    for one, other, value in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        found.append((one @ other.transpose(-1, -2) / math.sqrt(one.shape[-1])).softmax(-1) @ value)
    return linear(w, f"{name}.proj", torch.cat(found, -1))


def mlp(w: Weights, name: str, x: Tensor) -> Tensor:
    return x + linear(w, f"{name}.mlp.fc2", F.gelu(linear(w, f"{name}.mlp.fc1", norm(w, f"{name}.norm2", x))))


def nearest(rows: Tensor, count: int) -> list[Tensor]:
    return [rows[place * len(rows) // count] for place in range(count)]


def positions(table: Tensor, rows: int, columns: int) -> Tensor:
    """[rows, columns, D], from a table of a square frame."""
    side = math.isqrt(len(table))
    square = table.reshape(side, side, -1)
    return torch.stack([torch.stack(nearest(row, columns)) for row in nearest(square, rows)])


def divided(w: Weights, name: str, first: Tensor, x: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """`first` is [B,D], `x` [B,places,T,D]."""
    along = attention(w, f"{name}.temporal_attn", norm(w, f"{name}.temporal_norm1", x), heads)
    x = x + linear(w, f"{name}.temporal_fc", along)
    changes, copies = [], []
    for frame in x.unbind(2):
        tokens = torch.cat([first[:, None], frame], 1)
        change = attention(w, f"{name}.attn", norm(w, f"{name}.norm1", tokens), heads)
        copies.append(change[:, 0])
        changes.append(change[:, 1:])
    first, x = first + torch.stack(copies).mean(0), x + torch.stack(changes, 2)
    return mlp(w, name, first), mlp(w, name, x)


def whole(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    return mlp(w, name, x + attention(w, f"{name}.attn", norm(w, f"{name}.norm1", x), heads))


def feature(w: Weights, video: Tensor, model: dict[str, Any]) -> Tensor:
    """The class token. `video` is normalised."""
    kind, heads, patch = model["attention_type"], model["num_heads"], model["patch_size"]
    frames = [F.conv2d(f, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], patch) for f in video.unbind(2)]
    rows, columns = frames[0].shape[2:]
    space = positions(w["pos_embed"][0, 1:], rows, columns).flatten(0, 1)
    x = torch.stack([f.flatten(2).transpose(1, 2) + space for f in frames], 2)  # [B,places,T,D]
    first = (w["cls_token"] + w["pos_embed"][:, :1])[:, 0].expand(len(x), -1)
    if kind == "space_only":
        each = [torch.cat([first[:, None], frame], 1) for frame in x.unbind(2)]
        for block in range(model["depth"]):
            each = [whole(w, f"blocks.{block}", frame, heads) for frame in each]
        return norm(w, "norm", torch.stack(each).mean(0))[:, 0]
    x = x + torch.stack(nearest(w["time_embed"][0], len(frames)))
    if kind == "joint_space_time":
        tokens = torch.cat([first[:, None], x.flatten(1, 2)], 1)
        for block in range(model["depth"]):
            tokens = whole(w, f"blocks.{block}", tokens, heads)
        return norm(w, "norm", tokens)[:, 0]
    for block in range(model["depth"]):
        first, x = divided(w, f"blocks.{block}", first, x, heads)
    return norm(w, "norm", first)


def classification(
    w: Weights, video: Tensor, label: Tensor, model: dict[str, Any], *, resized: Tensor
) -> dict[str, Tensor]:
    found = feature(w, video, model)
    logits = linear(w, "head", found)
    with torch.no_grad():
        others = linear(w, "head", feature(w, resized, model))
    return {"feature": found, "logits": logits, "logits_resized": others, "loss": F.cross_entropy(logits, label)}
