"""The parity tests of Video Swin run unchanged on cases of other sizes and options.

The cases are made here by a plain second implementation, which is itself held against the stored ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plain_swin
import pytest
import torch
from cases import Shapes, passes_on, random_weights, with_gradients, write_case
from swin import spec_of, whole_clip
from torch import Tensor

from golden import assert_grad_norms, assert_output, load_case
from tubelet.models.swin.model import Swin
from tubelet.weights.swin.names import ENCODER, without_fixed
from tubelet.weights.tensors.rename import to_official

PLAIN: dict[str, Any] = {
    "depths": [2, 2],
    "drop_path_rate": 0.0,
    "embed_dim": 12,
    "mlp_ratio": 4.0,
    "num_heads": [2, 4],
    "patch_norm": True,
    "patch_size": [2, 4, 4],
    "qkv_bias": True,
    "window_size": [4, 3, 3],
}


def test_the_plain_implementation_is_the_authors_classifier() -> None:
    case = load_case("case07_videoswin")
    backbone, video, label = case.meta["config"]["backbone"], case.input["video"], case.input["label"]
    weights = without_fixed(case.weight)
    outputs, gradients = with_gradients(weights, lambda w: plain_swin.classification(w, video, label, backbone))
    for name, value in outputs.items():
        assert_output(case, name, value)
    assert_grad_norms(case, gradients)


def test_the_plain_implementation_is_bevts_pretraining() -> None:
    case = load_case("case07_bevt_pretrain")
    ids = {stream: case.output[f"{stream}_token_ids"] for stream in ("video", "image")}
    tokenizer = "cls_head.vae_encoder."
    weights = {name: value for name, value in without_fixed(case.weight).items() if not name.startswith(tokenizer)}
    outputs, gradients = with_gradients(
        weights, lambda w: plain_swin.pretraining(w, case.input, ids, case.meta["config"])
    )
    for name, value in outputs.items():
        if value.is_floating_point():
            assert_output(case, name, value)
    assert_grad_norms(case, gradients)


def shapes_of(backbone: dict[str, Any], *, masked: bool) -> tuple[Shapes, dict[str, Tensor]]:
    """Of the weights by the authors' names, and the indices that their files hold too."""
    spec = spec_of(backbone, "released")
    with torch.device("meta"):
        state = Swin(spec, whole_clip(spec), final_norm=True, masked=masked).state_dict()
    pairs = (*ENCODER, ("mask_token", "mask_token"))
    shapes = {f"backbone.{name}": tuple(value.shape) for name, value in to_official(state, pairs).items()}
    return shapes, {f"backbone.{name}": index_of(backbone) for name in indices(backbone)}


def indices(backbone: dict[str, Any]) -> list[str]:
    return [
        f"layers.{stage}.blocks.{block}.attn.relative_position_index"
        for stage, blocks in enumerate(backbone["depths"])
        for block in range(blocks)
    ]


def index_of(backbone: dict[str, Any]) -> Tensor:
    """As the authors count: distances made positive, the last axis fastest."""
    window = backbone["window_size"]
    places = torch.cartesian_prod(*[torch.arange(side) for side in window])
    apart = places[:, None] - places[None] + torch.tensor(window) - 1
    rows = [2 * side - 1 for side in window]
    return apart @ torch.tensor([rows[1] * rows[2], rows[2], 1])


def write_classifier(folder: Path, backbone: dict[str, Any], clip: tuple[int, int, int]) -> None:
    shapes, index = shapes_of(backbone, masked=False)
    width = backbone["embed_dim"] * 2 ** (len(backbone["depths"]) - 1)
    shapes |= {"cls_head.fc_cls.weight": (5, width), "cls_head.fc_cls.bias": (5,)}
    video, label = torch.randn(2, 3, *clip), torch.tensor([1, 4])
    write_case(
        folder, "case07_videoswin", config={"backbone": backbone, "classes": 5, "clip": [2, 3, *clip]},
        weights=random_weights(shapes) | index, inputs={"video": video, "label": label}, detached=[],
        outputs=lambda w: plain_swin.classification(w, video, label, backbone),
    )  # fmt: skip


def write_streams(folder: Path, backbone: dict[str, Any], *, frames: int, size: int) -> None:
    shapes, index = shapes_of(backbone, masked=True)
    first = backbone["embed_dim"]
    last = first * 2 ** (len(backbone["depths"]) - 1)
    tubelet, patch, _ = backbone["patch_size"]
    shapes |= {f"backbone.patch_embed_2d.{one}": (first,) for one in ("proj.bias", "norm.weight", "norm.bias")}
    shapes |= {"backbone.patch_embed_2d.proj.weight": (first, 3, patch, patch)}
    shapes |= {"backbone.fpn.0.weight": (last, last, 2, 2), "backbone.fpn_s.0.weight": (last, last, 1, 2, 2)}
    shapes |= {"backbone.fpn_t.0.weight": (last, last, tubelet, 1, 1)}
    shapes |= {f"backbone.{one}.weight": (last, last * 3 // 2) for one in ("lm_down", "lm_down_st.0")}
    biases = ("fpn.0", "fpn_s.0", "fpn_t.0", "lm_down", "lm_down_st.0")
    shapes |= {f"backbone.{one}.bias": (last,) for one in biases}
    shapes |= {"cls_head.lm_head.weight": (11, last), "cls_head.lm_head.bias": (11,)}
    cells = size // patch // 2 ** (len(backbone["depths"]) - 2)
    config = {
        "backbone": backbone, "frames": frames, "size": size, "token_grid": [frames, cells, cells],
        "head": {"in_channels": last, "num_classes": 11, "loss_weight_2d": 0.5, "loss_weight_3d": 1.0},
    }  # fmt: skip
    inputs = {
        "video": torch.randn(2, 3, frames, size, size), "image": torch.randn(3, 3, size, size),
        "video_mask": (torch.rand(2, frames // tubelet, cells, cells) < 0.4).long(),
        "image_mask": (torch.rand(3, cells, cells) < 0.5).long(),
    }  # fmt: skip
    ids = {"video": torch.randint(11, (2, frames, cells, cells)), "image": torch.randint(11, (3, cells, cells))}
    write_case(
        folder, "case07_bevt_pretrain", config=config, weights=random_weights(shapes) | index, inputs=inputs,
        detached=[], outputs=lambda w: plain_swin.pretraining(w, inputs, ids, config),
    )  # fmt: skip


BEVT = {"depths": [2, 2, 2], "num_heads": [1, 2, 4], "embed_dim": 8, "mlp_ratio": 2.0}
OPTIONS: dict[str, tuple[dict[str, Any], tuple[int, int, int], dict[str, Any], int, int]] = {
    "padding, windows clamped in time and space, odd sides": (
        {"depths": [2, 2, 2], "num_heads": [1, 2, 4], "window_size": [4, 3, 3]}, (7, 42, 62),
        {"window_size": [4, 3, 3]}, 6, 48,
    ),
    "windows as in the release, longer in time, a stage of three blocks, no norm of patches, heads apart from width": (
        {"depths": [3, 1], "num_heads": [3, 2], "window_size": [2, 4, 2], "patch_norm": False, "mlp_ratio": 3.0},
        (10, 36, 28), {"window_size": [2, 2, 2], "depths": [1, 2, 3], "num_heads": [2, 2, 8]}, 8, 32,
    ),
    "cubes of four frames and eight pixels, one window for all": (
        {"patch_size": [4, 8, 8], "window_size": [8, 7, 7]}, (8, 56, 56),
        {"patch_size": [4, 8, 8], "window_size": [3, 1, 1], "depths": [2, 2]}, 8, 32,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "clip", "streams", "frames", "size"), OPTIONS.values(), ids=OPTIONS.keys())
def test_parity_tests_pass_on_other_sizes_and_options(
    changes: dict[str, Any], clip: tuple[int, int, int], streams: dict[str, Any], frames: int, size: int, tmp_path: Path
) -> None:
    bevt = {**PLAIN, **BEVT, **streams}
    bevt["num_heads"] = bevt["num_heads"][: len(bevt["depths"])]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_classifier(tmp_path, {**PLAIN, **changes}, clip)
        write_streams(tmp_path, bevt, frames=frames, size=size)
    passes_on(tmp_path, "test_swin.py")
