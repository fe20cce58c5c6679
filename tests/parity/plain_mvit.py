"""A second, plain form of SlowFast's multiscale transformer: functions of their weights, all logits in memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
Side = tuple[int, ...]
EPS = 1e-6


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], EPS)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def on_grid(x: Tensor, grid: Side, first: int, change: Any) -> tuple[Tensor, Side]:
    """A change of [B,C,t,h,w] made to the tokens behind the class token."""
    changed = change(x[:, first:].transpose(1, 2).unflatten(2, grid))
    return torch.cat([x[:, :first], changed.flatten(2).transpose(1, 2)], 1), tuple(changed.shape[2:])


def pooled(w: Weights, name: str, x: Tensor, grid: Side, stride: Side, heads: int, first: int) -> tuple[Tensor, Side]:
    found = []
    for head in x.chunk(heads, dim=-1):
        weight = w[name.replace("norm_", "pool_") + ".weight"]
        padding = [side // 2 for side in weight.shape[2:]]
        one, after = on_grid(
            head, grid, first, lambda v, k=weight, p=padding: F.conv3d(v, k, None, stride, p, 1, len(k))
        )
        found.append(norm(w, name, one))
    return torch.stack(found, 1), after


def bias(q: Tensor, table: Tensor, axis: int, q_grid: Side, kv_grid: Side) -> Tensor:
    """[B,heads,queries,keys]: the distance of every pair, one by one."""
    here, there = q_grid[axis], kv_grid[axis]
    rows = 2 * max(here, there) - 1
    if len(table) != rows:
        table = F.interpolate(table.T[None], size=rows, mode="linear")[0].T
    q_step, k_step = max(there / here, 1.0), max(here / there, 1.0)
    queries = torch.cartesian_prod(*[torch.arange(side) for side in q_grid])[:, axis]
    keys = torch.cartesian_prod(*[torch.arange(side) for side in kv_grid])[:, axis]
    index = (queries[:, None] * q_step - keys[None] * k_step + (there - 1) * k_step).long()
    return torch.einsum("bnqd,qkd->bnqk", q, table[index])


def attention(
    w: Weights, name: str, x: Tensor, grid: Side, *, q_stride: Side, kv_stride: Side, heads: int, first: int, add: bool
) -> tuple[Tensor, Side]:
    qkv = linear(w, f"{name}.qkv", x).chunk(3, dim=-1)
    q, q_grid = pooled(w, f"{name}.norm_q", qkv[0], grid, q_stride, heads, first)
    k, kv_grid = pooled(w, f"{name}.norm_k", qkv[1], grid, kv_stride, heads, first)
    v, _ = pooled(w, f"{name}.norm_v", qkv[2], grid, kv_stride, heads, first)
    logits = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    for axis, letter in enumerate("thw"):
        if f"{name}.rel_pos_{letter}" in w:
            extra = bias(q[:, :, first:], w[f"{name}.rel_pos_{letter}"], axis, q_grid, kv_grid)
            logits = logits + F.pad(extra, (first, 0, first, 0))
    mixed = logits.softmax(-1) @ v
    if add:
        mixed = mixed + F.pad(q[:, :, first:], (0, 0, first, 0))
    return linear(w, f"{name}.proj", mixed.transpose(1, 2).flatten(2)), q_grid


def tokens(w: Weights, video: Tensor, mvit: dict[str, Any], hidden: Tensor | None = None) -> tuple[list[Tensor], Side]:
    """After each block, the class token first where there is one; and the last grid."""
    padding = mvit["PATCH_PADDING"]
    x = F.conv3d(video, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], mvit["PATCH_STRIDE"], padding)
    grid: Side = tuple(x.shape[2:])
    x = x.flatten(2).transpose(1, 2)
    if hidden is not None:
        m = F.interpolate(hidden[:, None].float(), size=grid).flatten(1)[..., None]
        x = x * (1 - m) + w["mask_token"] * m
    first = int(mvit["CLS_EMBED_ON"])
    if first:
        x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], 1)
    if mvit["USE_ABS_POS"]:
        space, time = w["pos_embed_spatial"], w["pos_embed_temporal"]
        table = space.repeat(1, grid[0], 1) + time.repeat_interleave(grid[1] * grid[2], dim=1)
        x = x + (torch.cat([w["pos_embed_class"], table], 1) if first else table)
    heads, kv_stride, found = mvit["NUM_HEADS"], mvit["POOL_KV_STRIDE_ADAPTIVE"], []
    more = dict(map(tuple, mvit["HEAD_MUL"]))
    for block in range(mvit["DEPTH"]):
        name, heads = f"blocks.{block}", int(heads * more.get(block, 1))
        q_stride = tuple(dict((row[0], row[1:]) for row in mvit["POOL_Q_STRIDE"])[block])
        kv_stride = tuple(max(k // q, 1) for k, q in zip(kv_stride, q_stride, strict=True))
        normed = norm(w, f"{name}.norm1", x)
        mixed, after = attention(
            w, f"{name}.attn", normed, grid, q_stride=q_stride, kv_stride=kv_stride, heads=heads, first=first,
            add=mvit["RESIDUAL_POOLING"],
        )  # fmt: skip
        skip = linear(w, f"{name}.proj", normed) if mixed.shape[-1] != x.shape[-1] else x
        if math.prod(q_stride) > 1:
            kernel = [s + 1 if s > 1 else 1 for s in q_stride]
            pad = [k // 2 for k in kernel]
            skip, _ = on_grid(skip, grid, first, lambda v, k=kernel, s=q_stride, p=pad: F.max_pool3d(v, k, s, p))
        x, grid = skip + mixed, after
        normed = norm(w, f"{name}.norm2", x)
        changed = linear(w, f"{name}.mlp.fc2", F.gelu(linear(w, f"{name}.mlp.fc1", normed)))
        x = (linear(w, f"{name}.proj", normed) if changed.shape[-1] != x.shape[-1] else x) + changed
        found.append(x)
    return found, grid


def classification(w: Weights, video: Tensor, label: Tensor, mvit: dict[str, Any]) -> Weights:
    blocks, _ = tokens(w, video, mvit)
    x, first = blocks[-1], int(mvit["CLS_EMBED_ON"])
    if mvit["USE_MEAN_POOLING"]:
        features = norm(w, "norm", x[:, first:].mean(1))
    else:
        normed = norm(w, "norm", x)
        features = normed[:, 0] if first else normed.mean(1)
    logits = linear(w, "head.projection", features)
    outputs = {"logits": logits, "loss": F.cross_entropy(logits, label), "pooled": features}
    outputs |= {f"block{i}_tokens": found for i, found in enumerate(blocks) if i}
    return {**outputs, "probabilities": logits.softmax(1)}


def prediction(w: Weights, video: Tensor, mask: Tensor, targets: Tensor, mvit: dict[str, Any]) -> Weights:
    blocks, grid = tokens(w, video, mvit, mask)
    x = norm(w, "pred_head.transforms.0.0", blocks[-1][:, int(mvit["CLS_EMBED_ON"]) :])
    found = linear(w, "pred_head.projections.0", x)
    rows = F.interpolate(mask[:, None].float(), size=grid).flatten(1).bool()
    loss = (found[rows] - targets).square().mean()
    return {"predictions": found[rows], "predictions_all_tokens": found, "targets": targets, "loss": loss}
