"""Our encoder of DALL-E's discrete VAE is the authors': golden case 08, built from its metadata."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from golden import Case, load_case
from tubelet.models.tokenizers.dvae import DvaeEncoder, DvaeSpec
from tubelet.types import Cube, Grid
from tubelet.weights.dalle import read_dvae

MARGIN = 1e-3
"""Ids are compared where the best logit leads by more: the metadata ask for it."""


@pytest.fixture(scope="module")
def case() -> Case:
    return load_case("case08_dalle_dvae")


@pytest.fixture(scope="module")
def encoder(case: Case, tmp_path_factory: pytest.TempPathFactory) -> DvaeEncoder:
    """Read from a file of the case's weights, decoder and all."""
    path = tmp_path_factory.mktemp("dvae") / "dvae.safetensors"
    save_file(case.weight, path)
    return read_dvae(path)


def test_the_size_is_that_of_the_metadata(case: Case, encoder: DvaeEncoder) -> None:
    config = case.meta["config"]
    known = {"group_count", "image", "n_blk_per_group", "n_hid", "n_init", "vocab_size"}
    assert config.keys() <= known, f"options that this test does not know: {config.keys() - known}"
    assert encoder.spec == DvaeSpec(
        width=config["n_hid"],
        groups=config["group_count"],
        blocks=config["n_blk_per_group"],
        vocabulary=config["vocab_size"],
    )


def test_logits(case: Case, encoder: DvaeEncoder) -> None:
    logits = encoder(case.input["image"])
    torch.testing.assert_close(logits.detach(), case.output["logits"], atol=1e-4, rtol=1e-4)


def test_ids_where_they_are_sure(case: Case, encoder: DvaeEncoder) -> None:
    sure = case.output["token_margin"] > MARGIN
    assert sure.float().mean() > 0.5
    assert torch.equal(encoder.ids(case.input["image"])[sure], case.output["token_ids"][sure])


def test_gradients_of_the_cross_entropy(case: Case, encoder: DvaeEncoder) -> None:
    """The loss of the case is this of the encoder plus one of the decoder, which shares no weight with it."""
    logits = encoder(case.input["image"])
    loss = torch.nn.functional.cross_entropy(logits, torch.zeros(logits[:, 0].shape, dtype=torch.int64))
    named = {
        "encoder.blocks.input.w": encoder.stem.weight,
        "encoder.blocks.group_4.block_1.res_path.conv_1.w": dict(encoder.named_parameters())[
            "groups.4.1.convs.1.weight"
        ],
    }
    given = {name: value for name, value in named.items() if name in case.grad_norm}
    assert given
    gradients = torch.autograd.grad(loss, list(given.values()))
    for name, gradient in zip(given, gradients, strict=True):
        torch.testing.assert_close(gradient.norm(), case.grad_norm[name][0], rtol=1e-3, atol=1e-7)


def test_a_target_gives_the_ids_of_the_first_frame_of_each_tubelet(case: Case, encoder: DvaeEncoder) -> None:
    """Where the picture is square: pictures as frames, each followed by one of noise, and tokens in raster order."""
    from tubelet.targets.frozen import FrozenTarget
    from tubelet.targets.teachers import FrameIds
    from tubelet.targets.tokens import Tokens

    image, ids = case.input["image"], case.output["token_ids"]
    side = min(image.shape[2:]) // 8 * 8
    square = image[..., :side, :side]
    if image.shape[2] != image.shape[3]:
        ids = encoder.ids(square)
    frames = torch.stack([square, torch.rand_like(square)], 1).flatten(0, 1)  # t f
    video = 255.0 * frames.transpose(0, 1).unsqueeze(0)
    grid, cube = Grid(len(image), side // 8, side // 8), Cube(2, 8, 8)
    target = FrozenTarget(Tokens(), FrameIds(encoder, grid=grid), width=encoder.spec.vocabulary, file=Path("dvae"))
    rows = target.rows(video, torch.arange(grid.tokens).unsqueeze(0), cube)
    assert torch.equal(rows, ids.flatten().unsqueeze(0))
