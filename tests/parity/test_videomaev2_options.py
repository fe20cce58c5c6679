"""The V2 parity tests run unchanged on cases of other sizes and options, as those of V1 do.

Cosine attention with temperatures above the bound, patches of 14, layer scale, token 0 read through the final norm,
learnt positions, decoded tokens that were seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plain
import pytest
import torch
from cases import Shapes, block_shapes, passes_on, random_weights, with_gradients, write_case
from torch import Tensor

from golden import assert_grad_norms, assert_output, load_case

G_RATIO = 48 / 11


def test_the_plain_implementation_is_the_authors_pretraining() -> None:
    case = load_case("case03_videomaev2_pretrain")
    given, model = case.input, case.meta["config"]["model"]
    outputs, gradients = with_gradients(
        case.weight,
        lambda w: plain.pretraining_v2(w, given["videos"], given["encoder_mask"], given["decoder_mask"], model),
    )
    assert outputs.keys() | {"grad_norm_total"} == case.output.keys()
    for name, value in outputs.items():
        assert_output(case, name, value)
    assert_grad_norms(case, gradients)


def test_the_plain_implementation_is_the_authors_classifier() -> None:
    case = load_case("case04_videomaev2_finetune")
    videos, label, model = case.input["videos"], case.input["label"], case.meta["config"]["model"]
    outputs, gradients = with_gradients(case.weight, lambda w: plain.classification(w, videos, label, model))
    for name, value in outputs.items():
        assert_output(case, name, value)
    assert_grad_norms(case, gradients)


def weights_of(shapes: Shapes) -> dict[str, Tensor]:
    """Random; where there are temperatures, those of the first head are above the bound."""
    weights = random_weights(shapes)
    for name in weights:
        if name.endswith("attn.scale"):
            weights[name] = torch.full(shapes[name], 2.0)
            weights[name][0] = 5.0
    return weights


def write_pretraining(folder: Path, *, cosine: bool) -> None:
    """Patch 14, 6x4x4 tokens, 48/11 as the ratio of hidden units, layer scale; decoded tokens drawn at random."""
    width, narrow, patch, heads = 44, 22, 14, {"encoder": 4, "decoder": 2}
    model: dict[str, Any] = {
        "all_frames": 12, "img_size": 56, "patch_size": patch, "tubelet_size": 2, "mlp_ratio": G_RATIO,
        "encoder_embed_dim": width, "encoder_depth": 2, "encoder_num_heads": 4, "encoder_in_chans": 3,
        "decoder_embed_dim": narrow, "decoder_depth": 1, "decoder_num_heads": 2,
        "decoder_num_classes": 6 * patch * patch, "init_values": 0.2, "cos_attn": cosine,
        "qkv_bias": True, "qk_scale": None, "use_learnable_pos_emb": False,
    }  # fmt: skip
    shapes: Shapes = {"mask_token": (1, 1, narrow), "encoder_to_decoder.weight": (narrow, width)}
    shapes |= {"encoder.patch_embed.proj.weight": (width, 3, 2, patch, patch)}
    shapes |= {"encoder.patch_embed.proj.bias": (width,)}
    for part, size, depth in (("encoder", width, 2), ("decoder", narrow, 1)):
        for i in range(depth):
            prefix, hidden = f"{part}.blocks.{i}.", int(size * G_RATIO)
            cosine_heads = heads[part] if cosine else 0
            shapes |= block_shapes(prefix, size, hidden, scaled=True, cosine_heads=cosine_heads)
        shapes |= {f"{part}.norm.{end}": (size,) for end in ("weight", "bias")}
    shapes |= {"decoder.head.weight": (6 * patch * patch, narrow), "decoder.head.bias": (6 * patch * patch,)}
    videos = torch.randn(2, 3, 12, 56, 56)
    place = torch.stack([torch.randperm(16) < 14 for _ in range(2)])
    encoder_mask = place.repeat(1, 6).to(torch.uint8)
    decoder_mask = torch.stack([torch.randperm(96) < 64 for _ in range(2)]).to(torch.uint8)
    config = {"engine": {"normlize_target": True}, "token_grid_thw": [6, 4, 4], "model": model}
    write_case(
        folder, "case03_videomaev2_pretrain", config=config, weights=weights_of(shapes),
        inputs={"videos": videos, "encoder_mask": encoder_mask, "decoder_mask": decoder_mask},
        outputs=lambda w: plain.pretraining_v2(w, videos, encoder_mask, decoder_mask, model), detached=[],
    )  # fmt: skip


def write_finetuning(folder: Path, *, cosine: bool, learnable: bool, mean: bool) -> None:
    """Width 44, tubelets of 3 frames, 48/11 as the ratio of hidden units."""
    width, patch, classes = 44, 14, 7
    model: dict[str, Any] = {
        "all_frames": 9, "img_size": 28, "patch_size": patch, "tubelet_size": 3, "mlp_ratio": G_RATIO,
        "embed_dim": width, "depth": 2, "num_heads": 4, "num_classes": classes, "init_values": 0.1 if cosine else 0.0,
        "head_drop_rate": 0.0, "init_scale": 0.001, "qkv_bias": True, "qk_scale": None, "cos_attn": cosine,
        "use_learnable_pos_emb": learnable, "use_mean_pooling": mean,
    }  # fmt: skip
    shapes: Shapes = {"patch_embed.proj.weight": (width, 3, 3, patch, patch), "patch_embed.proj.bias": (width,)}
    shapes |= {"pos_embed": (1, 12, width)} if learnable else {}
    for i in range(2):
        hidden, heads = int(width * G_RATIO), 4 if cosine else 0
        shapes |= block_shapes(f"blocks.{i}.", width, hidden, scaled=cosine, cosine_heads=heads)
    shapes |= {f"{'fc_norm' if mean else 'norm'}.{part}": (width,) for part in ("weight", "bias")}
    shapes |= {"head.weight": (classes, width), "head.bias": (classes,)}
    videos, label = torch.randn(2, 3, 9, 28, 28), torch.tensor([1, 6])
    write_case(
        folder, "case04_videomaev2_finetune", config={"model": model},
        weights=weights_of(shapes), inputs={"videos": videos, "label": label},
        outputs=lambda w: plain.classification(w, videos, label, model), detached=["pos_embed"] if learnable else [],
    )  # fmt: skip


@pytest.mark.parametrize(("cosine", "learnable", "mean"), [(True, False, False), (True, True, True)])
def test_parity_tests_pass_on_other_sizes_and_options(
    tmp_path: Path, cosine: bool, learnable: bool, mean: bool
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_pretraining(tmp_path, cosine=cosine)
        write_finetuning(tmp_path, cosine=cosine, learnable=learnable, mean=mean)
    passes_on(tmp_path, "test_videomaev2.py")
