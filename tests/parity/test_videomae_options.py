"""The parity tests run unchanged on cases of other sizes and options: they build everything from the metadata.

The cases are made here by a plain second implementation, which is itself held against the stored ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plain
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from golden import assert_grad_norms, assert_output, load_case

HERE = Path(__file__).parent
Outputs = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def with_gradients(weights: dict[str, Tensor], outputs: Outputs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What `outputs` gives for these weights, and the gradients of its loss."""
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    found = outputs(leaves)
    found["loss"].backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return {name: value.detach() for name, value in found.items()}, gradients


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


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.randn(shape) * (0.5 if len(shape) == 1 else 0.1) for name, shape in shapes.items()}


def block_shapes(prefix: str, width: int, hidden: int, *, scaled: bool) -> dict[str, tuple[int, ...]]:
    norms: dict[str, tuple[int, ...]] = {
        f"{prefix}norm{n}.{part}": (width,) for n in (1, 2) for part in ("weight", "bias")
    }
    attention: dict[str, tuple[int, ...]] = {f"{prefix}attn.q_bias": (width,), f"{prefix}attn.v_bias": (width,)}
    attention[f"{prefix}attn.qkv.weight"] = (3 * width, width)
    attention[f"{prefix}attn.proj.weight"] = (width, width)
    attention[f"{prefix}attn.proj.bias"] = (width,)
    mlp: dict[str, tuple[int, ...]] = {f"{prefix}mlp.fc1.weight": (hidden, width), f"{prefix}mlp.fc1.bias": (hidden,)}
    mlp |= {f"{prefix}mlp.fc2.weight": (width, hidden), f"{prefix}mlp.fc2.bias": (width,)}
    scales = {f"{prefix}gamma_{n}": (width,) for n in (1, 2)} if scaled else {}
    return {**norms, **attention, **mlp, **scales}


def write_case(
    folder: Path, stem: str, *, config: dict[str, Any], weights: dict[str, Tensor], inputs: dict[str, Tensor],
    outputs: Outputs, detached: list[str],
) -> None:  # fmt: skip
    found, gradients = with_gradients(weights, outputs)
    norms = {name: gradient.norm().reshape(1) for name, gradient in gradients.items()}
    found["grad_norm_total"] = torch.cat(list(norms.values())).norm()
    meta = {
        "config": config,
        "extra": {"params_with_zero_or_no_grad": detached},
        "tolerance_per_output": {name: {"atol": 5e-5, "rtol": 1e-4} for name in found},
    }
    parts = {"weight": weights, "input": inputs, "grad_norm": norms}
    flat = {f"{part}/{name}": value.contiguous() for part, held in parts.items() for name, value in held.items()}
    flat |= {f"output/{name}": value.reshape(value.shape or (1,)).contiguous() for name, value in found.items()}
    save_file(flat, folder / f"{stem}.safetensors", metadata={"golden": json.dumps(meta)})


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
    shapes: dict[str, tuple[int, ...]] = {"mask_token": (1, 1, narrow), "encoder_to_decoder.weight": (narrow, width)}
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
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.proj.weight": (width, 3, 3, patch, patch)}
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
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_videomae.py")],
        env={**os.environ, "TUBELET_GOLDEN": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout
