"""VideoMAE (V1 and V2) once more, as plain functions over the authors' names: slow, and sharing nothing with tubelet.

It makes golden-like cases with options that the stored ones may not have.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1, 1)


def table(tokens: int, width: int) -> Tensor:
    rows = [
        [(math.sin if j % 2 == 0 else math.cos)(i / 10000 ** (2 * (j // 2) / width)) for j in range(width)]
        for i in range(tokens)
    ]
    return torch.tensor(rows).unsqueeze(0)


def norm(x: Tensor, w: Weights, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))


def block(x: Tensor, w: Weights, name: str, heads: int) -> Tensor:
    batch, tokens, width = x.shape
    bias = torch.cat([w[f"{name}.attn.q_bias"], torch.zeros(width), w[f"{name}.attn.v_bias"]])
    qkv = norm(x, w, f"{name}.norm1") @ w[f"{name}.attn.qkv.weight"].T + bias
    q, k, v = qkv.reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    if f"{name}.attn.scale" in w:  # cosines, times a temperature that is learnt as its logarithm and bounded
        q, k = (x / x.square().sum(-1, keepdim=True).sqrt() for x in (q, k))
        logits = q @ k.transpose(-2, -1) * w[f"{name}.attn.scale"].clamp(max=4.6052).exp()
    else:
        logits = q @ k.transpose(-2, -1) / math.sqrt(width // heads)
    mixed = (logits.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width)
    x = x + w.get(f"{name}.gamma_1", torch.ones(())) * linear(mixed, w, f"{name}.attn.proj")
    hidden = linear(norm(x, w, f"{name}.norm2"), w, f"{name}.mlp.fc1")
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + w.get(f"{name}.gamma_2", torch.ones(())) * linear(hidden, w, f"{name}.mlp.fc2")


def embed(videos: Tensor, w: Weights, name: str) -> Tensor:
    weight = w[f"{name}.proj.weight"]
    return F.conv3d(videos, weight, w[f"{name}.proj.bias"], stride=weight.shape[2:]).flatten(2).transpose(1, 2)


def cubes(videos: Tensor, model: dict[str, Any]) -> Tensor:
    """[B,N,pixels,3] in 0..1."""
    f, p = model["tubelet_size"], model["patch_size"]
    x = (videos * STD + MEAN).unfold(2, f, f).unfold(3, p, p).unfold(4, p, p)
    return x.permute(0, 2, 3, 4, 5, 6, 7, 1).flatten(1, 3).flatten(2, 4)


def pretraining(w: Weights, videos: Tensor, mask: Tensor, model: dict[str, Any]) -> dict[str, Tensor]:
    """V1: every hidden token is decoded."""
    hidden = mask.bool()
    found = dual_masked(w, videos, hidden, hidden, model)
    pixels = cubes(videos, model)
    plain = pixels[hidden].reshape(found["predictions"].shape)
    names = ("encoder_tokens", "predictions", "targets", "loss", "pos_embed_encoder", "pos_embed_decoder")
    return {
        **{name: found[name] for name in names},
        "loss_unnormalised": F.mse_loss(found["predictions"], plain),
    }


def pretraining_v2(
    w: Weights, videos: Tensor, encoder_mask: Tensor, decoder_mask: Tensor, model: dict[str, Any]
) -> dict[str, Tensor]:
    """V2: 1 in `decoder_mask` means not decoded."""
    hidden, decoded = encoder_mask.bool(), decoder_mask == 0
    found = dual_masked(w, videos, hidden, decoded, model)
    del found["pos_embed_encoder"]
    return {**found, "loss_no_decoder_mask": dual_masked(w, videos, hidden, hidden, model)["loss"]}


def dual_masked(
    w: Weights, videos: Tensor, hidden: Tensor, decoded: Tensor, model: dict[str, Any]
) -> dict[str, Tensor]:
    batch = len(videos)
    x = embed(videos, w, "encoder.patch_embed")
    tables = {"encoder": table(x.shape[1], x.shape[2]), "decoder": table(x.shape[1], model["decoder_embed_dim"])}
    x = (x + tables["encoder"])[~hidden].reshape(batch, -1, x.shape[2])
    for i in range(model["encoder_depth"]):
        x = block(x, w, f"encoder.blocks.{i}", model["encoder_num_heads"])
    tokens = norm(x, w, "encoder.norm")
    places = tables["decoder"].expand(batch, -1, -1)
    seen = linear(tokens, w, "encoder_to_decoder") + places[~hidden].reshape(batch, -1, places.shape[2])
    x = torch.cat([seen, w["mask_token"] + places[decoded].reshape(batch, -1, places.shape[2])], 1)
    for i in range(model["decoder_depth"]):
        x = block(x, w, f"decoder.blocks.{i}", model["decoder_num_heads"])
    predictions = linear(norm(x[:, seen.shape[1] :], w, "decoder.norm"), w, "decoder.head")
    pixels = cubes(videos, model)
    normalised = (pixels - pixels.mean(2, keepdim=True)) / (pixels.var(2, keepdim=True).sqrt() + 1e-6)
    wanted = normalised[decoded].reshape(predictions.shape)
    counted = hidden[decoded].reshape(batch, -1)
    error = (predictions - wanted).square().mean(-1)
    return {
        "encoder_tokens": tokens,
        "predictions": predictions,
        "targets": wanted,
        "counted": counted.to(torch.uint8),
        "loss": (error * counted).sum() / counted.sum(),
        "pos_embed_encoder": tables["encoder"],
        "pos_embed_decoder": tables["decoder"],
    }


def classification(w: Weights, videos: Tensor, label: Tensor, model: dict[str, Any]) -> dict[str, Tensor]:
    x = embed(videos, w, "patch_embed")
    x = x + (w["pos_embed"].detach() if model["use_learnable_pos_emb"] else table(x.shape[1], x.shape[2]))
    for i in range(model["depth"]):
        x = block(x, w, f"blocks.{i}", model["num_heads"])
    pooled = norm(x.mean(1), w, "fc_norm") if model["use_mean_pooling"] else norm(x, w, "norm")[:, 0]
    logits = linear(pooled, w, "head")
    return {"block_tokens": x, "pooled": pooled, "logits": logits, "loss": F.cross_entropy(logits, label)}
