"""The parity tests run unchanged on cases of other sizes and options: they build everything from the metadata.

The cases are made here by a plain second implementation, which is itself held against the stored ones.
"""

from __future__ import annotations

from pathlib import Path

import plain
import pytest
import torch
from cases import Shapes, block_shapes, passes_on, random_weights, with_gradients, write_case

from golden import assert_grad_norms, assert_output, load_case


def test_the_plain_implementation_is_the_authors_pretraining() -> None:
    case = load_case("case01_videomae_pretrain")
    videos, mask, model = case.input["videos"], case.input["mask"], case.meta["config"]["model"]
    outputs, gradients = with_gradients(case.weight, lambda w: plain.pretraining(w, videos, mask, model))
    for name, value in outputs.items():
        assert_output(case, name, value)
    assert_grad_norms(case, gradients)


def test_the_plain_implementation_is_the_authors_classifier() -> None:
    case = load_case("case02_videomae_finetune")
    videos, label, model = case.input["videos"], case.input["label"], case.meta["config"]["model"]
    outputs, gradients = with_gradients(case.weight, lambda w: plain.classification(w, videos, label, model))
    for name, value in outputs.items():
        assert_output(case, name, value)
    assert_grad_norms(case, gradients)


def write_pretraining(folder: Path) -> None:
    """Patch 8, 8x4x4 tokens, nine tenths hidden, layer scale, another mlp ratio."""
    size, patch, width, narrow = 32, 8, 24, 12
    model = {
        "img_size": size, "patch_size": patch, "tubelet_size": 2, "mlp_ratio": 3.0, "init_values": 0.1,
        "encoder_embed_dim": width, "encoder_depth": 2, "encoder_num_heads": 3, "encoder_in_chans": 3,
        "decoder_embed_dim": narrow, "decoder_depth": 2, "decoder_num_heads": 2,
        "decoder_num_classes": 3 * 2 * patch * patch,
        "qkv_bias": True, "qk_scale": None, "use_learnable_pos_emb": False,
    }  # fmt: skip
    config = {
        "engine": {"normlize_target": True}, "frames": 16, "mask_ratio": 0.9, "token_grid_thw": [8, 4, 4],
        "model": model,
    }  # fmt: skip
    shapes: Shapes = {"mask_token": (1, 1, narrow), "encoder_to_decoder.weight": (narrow, width)}
    shapes |= {
        "encoder.patch_embed.proj.weight": (width, 3, 2, patch, patch),
        "encoder.patch_embed.proj.bias": (width,),
    }
    for i in range(2):
        shapes |= block_shapes(f"encoder.blocks.{i}.", width, 3 * width, scaled=True)
        shapes |= block_shapes(f"decoder.blocks.{i}.", narrow, 3 * narrow, scaled=True)
    shapes |= {f"encoder.norm.{part}": (width,) for part in ("weight", "bias")}
    shapes |= {f"decoder.norm.{part}": (narrow,) for part in ("weight", "bias")}
    shapes |= {"decoder.head.weight": (384, narrow), "decoder.head.bias": (384,)}
    videos = torch.randn(2, 3, 16, size, size)
    place = torch.stack([torch.randperm(16) < 14 for _ in range(2)])
    mask = place.repeat(1, 8).to(torch.uint8)
    write_case(
        folder, "case01_videomae_pretrain", config=config, weights=random_weights(shapes),
        inputs={"videos": videos, "mask": mask}, outputs=lambda w: plain.pretraining(w, videos, mask, model),
        detached=[],
    )  # fmt: skip


def write_finetuning(folder: Path, *, learnable: bool, mean: bool) -> None:
    """Width 36, other frames and tubelets, layer scale, token 0 or mean, learnable positions or fixed."""
    width, patch, classes = 36, 8, 5
    model = {
        "all_frames": 12, "img_size": 24, "patch_size": patch, "tubelet_size": 3, "mlp_ratio": 2.5,
        "embed_dim": width, "depth": 2, "num_heads": 3, "num_classes": classes, "init_values": 0.2,
        "fc_drop_rate": 0.0, "init_scale": 0.001, "qkv_bias": True, "qk_scale": None,
        "use_learnable_pos_emb": learnable, "use_mean_pooling": mean,
    }  # fmt: skip
    shapes: Shapes = {"patch_embed.proj.weight": (width, 3, 3, patch, patch)}
    shapes["patch_embed.proj.bias"] = (width,)
    shapes |= {"pos_embed": (1, 36, width)} if learnable else {}
    for i in range(2):
        shapes |= block_shapes(f"blocks.{i}.", width, int(2.5 * width), scaled=True)
    shapes |= {f"{'fc_norm' if mean else 'norm'}.{part}": (width,) for part in ("weight", "bias")}
    shapes |= {"head.weight": (classes, width), "head.bias": (classes,)}
    videos, label = torch.randn(2, 3, 12, 24, 24), torch.tensor([1, 4])
    write_case(
        folder, "case02_videomae_finetune", config={"model": model}, weights=random_weights(shapes),
        inputs={"videos": videos, "label": label},
        outputs=lambda w: plain.classification(w, videos, label, model),
        detached=["pos_embed"] if learnable else [],
    )  # fmt: skip


@pytest.mark.parametrize(("learnable", "mean"), [(True, False), (False, True)])
def test_parity_tests_pass_on_other_sizes_and_options(tmp_path: Path, learnable: bool, mean: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_pretraining(tmp_path)
        write_finetuning(tmp_path, learnable=learnable, mean=mean)
    passes_on(tmp_path, "test_videomae.py")
