"""Sizes are read from shapes; heads and clips from hints, options or published sizes, and then a note says so."""

import math
from pathlib import Path

import pytest
import torch
from released import CLIP, DECODER, ENCODER, autoencoder, classifier
from torch import Tensor

from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.block import mlp_ratio
from tubelet.spec import replace
from tubelet.types import ClipShape
from tubelet.weights.tensors.given import Given, Hints
from tubelet.weights.tensors.options import SavedOptions
from tubelet.weights.videomae.shapes import (
    DECODER_HEADS,
    ENCODER_HEADS,
    decoder_spec,
    encoder_spec,
    trained_clip,
)

FILE = Path("weights.pth")
HEADS = Given(FILE, Hints(heads=2, decoder_heads=2))


def embedding(width: int, cube: tuple[int, int, int] = (2, 16, 16)) -> dict[str, Tensor]:
    return {"encoder.patch_embed.weight": torch.empty(width, 3, *cube, device="meta")}


def published(width: int) -> dict[str, Tensor]:
    """What `encoder_spec` looks at, for one block."""
    return embedding(width) | {"encoder.blocks.0.mlp.fc1.weight": torch.empty(4 * width, width, device="meta")}


def test_the_ratio_gives_the_hidden_width_exactly() -> None:
    assert int(1408 * mlp_ratio(1408, 6144)) == 6144
    for width in range(2, 200):
        for hidden in range(1, 400, 7):
            assert int(width * mlp_ratio(width, hidden)) == hidden


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mlp_ratio": 48 / 11, "width": 44, "heads": 2},
        {"tubelet": 1, "patch": 4},
        {"depth": 11},
        {"layer_scale": 0.1},
        {"cosine_attention": True},
        {"learnable_positions": True},
    ],
    ids=str,
)
def test_a_model_is_built_again_from_its_shapes(changes: dict[str, object]) -> None:
    encoder = replace(ENCODER, **changes)
    shared = {name: value for name, value in changes.items() if name in DecoderSpec.model_fields and name != "width"}
    decoder = replace(DECODER, **{**shared, "heads": 2})
    model = autoencoder(encoder, decoder)
    notes: list[str] = []
    found, narrow = encoder_spec(model.state_dict(), HEADS, notes), decoder_spec(model.state_dict(), HEADS, notes)
    rebuilt = autoencoder(found, narrow)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in rebuilt.state_dict().items()} == shapes
    assert notes == []


@pytest.mark.parametrize(("width", "heads"), ENCODER_HEADS.items())
def test_published_widths_have_their_heads_and_a_note(width: int, heads: int) -> None:
    notes: list[str] = []
    assert encoder_spec(published(width), Given(FILE), notes).heads == heads
    assert f"heads are not in the file: taken as {heads}" in notes[0]
    assert "--heads" in notes[0]
    notes.clear()
    named = Given(FILE, options=SavedOptions(model="vit_base_patch16_224"))
    assert encoder_spec(published(width), named, notes).heads == heads
    assert notes == []


def test_heads_come_from_temperatures_then_hints() -> None:
    notes: list[str] = []
    state = published(384) | {"encoder.blocks.0.attention.scale": torch.ones(4, 1, 1)}
    assert encoder_spec(state, Given(FILE), notes).heads == 4
    assert encoder_spec(state, Given(FILE, Hints(heads=4)), notes).heads == 4
    with pytest.raises(ValueError, match="has 4 heads, not 6; leave --heads out"):
        encoder_spec(state, Given(FILE, Hints(heads=6)), notes)
    assert encoder_spec(published(384), Given(FILE, Hints(heads=12)), notes).heads == 12
    assert notes == []


def test_heads_that_nobody_knows_are_asked_for() -> None:
    state = autoencoder().state_dict()
    with pytest.raises(ValueError, match=r"weights.pth: the number of heads .* width 8; give --heads"):
        encoder_spec(state, Given(FILE), [])
    with pytest.raises(ValueError, match=r"the number of decoder heads .* width 6; give --decoder-heads"):
        decoder_spec(state, Given(FILE), [])
    with pytest.raises(ValueError, match="5 heads do not divide the width 8"):
        encoder_spec(state, Given(FILE, Hints(heads=5)), [])
    assert set(DECODER_HEADS) == {192, 384, 512, 640}


def test_a_decoder_of_another_target_is_refused() -> None:
    state = dict(autoencoder().state_dict())
    state["decoder.head.weight"] = torch.ones(108, 6)
    with pytest.raises(ValueError, match=r"predicts 108 numbers per token, but a cube of \(2, 8, 8\) has 384"):
        decoder_spec(state, HEADS, [])


def test_a_part_of_a_model_is_refused_by_what_it_lacks() -> None:
    state = dict(classifier(replace(ENCODER, depth=3)).state_dict())
    with pytest.raises(ValueError, match=r"lacks encoder.blocks.1, although"):
        encoder_spec({name: t for name, t in state.items() if ".blocks.1." not in name}, HEADS, [])
    with pytest.raises(ValueError, match=r"lacks encoder.blocks.0.mlp.fc1.weight"):
        encoder_spec({name: t for name, t in state.items() if "blocks" not in name}, HEADS, [])
    state["encoder.patch_embed.weight"] = torch.ones(8, 3, 2, 8, 4)
    with pytest.raises(ValueError, match=r"the patch embedding is \[8, 3, 2, 8, 4\]"):
        encoder_spec(state, HEADS, [])


def table(frames: int, size: int, cube: tuple[int, int, int] = (2, 16, 16)) -> dict[str, Tensor]:
    tokens = frames // cube[0] * (size // cube[1]) ** 2
    return embedding(8, cube) | {"encoder.pos_embed": torch.empty(1, tokens, 8, device="meta")}


def clip(frames: int, size: int) -> ClipShape:
    return ClipShape(frames=frames, size=size)


def test_the_clip_is_that_of_hints_then_options_then_the_usual_one() -> None:
    notes: list[str] = []
    saved = SavedOptions(frames=32, size=320)
    assert trained_clip(embedding(8), Given(FILE, options=saved), notes) == clip(32, 320)
    assert trained_clip(embedding(8), Given(FILE, Hints(frames=8, size=64), saved), notes) == clip(8, 64)
    assert notes == []
    assert trained_clip(embedding(8), Given(FILE), notes) == clip(16, 224)
    assert trained_clip(embedding(8), Given(FILE, Hints(size=64)), notes) == clip(16, 64)
    assert "frames and size of the clips" in notes[0]
    assert notes[1].startswith("frames of the clips")


@pytest.mark.parametrize(("frames", "size"), [(16, 224), (32, 224), (8, 112), (16, 160), (4, 32)])
def test_the_length_of_a_table_tells_the_clip(frames: int, size: int) -> None:
    notes: list[str] = []
    state = table(frames, size)
    assert trained_clip(state, Given(FILE, Hints(frames=frames)), notes) == clip(frames, size)
    assert trained_clip(state, Given(FILE, Hints(size=size)), notes) == clip(frames, size)
    tokens = state["encoder.pos_embed"].shape[1]
    fixed = Given(FILE, Hints(frames=frames), tokens=tokens)
    assert trained_clip(embedding(8), fixed, notes) == clip(frames, size)
    assert notes == []
    if frames == 16 or size == 224:
        assert trained_clip(state, Given(FILE), notes) == clip(frames, size)
        assert "--trained-frames" in notes[0]


def test_a_table_that_fits_no_clip_is_refused() -> None:
    for hints, said in [
        (Hints(), "no clip of the usual length or size"),
        (Hints(frames=16), "no clip of 16 frames"),
        (Hints(size=224), "no clip of size 224"),
        (Hints(frames=16, size=224), "has 7 rows, but a clip of 16 frames of 224 x 224 has 1568 tokens"),
    ]:
        state = embedding(8) | {"encoder.pos_embed": torch.ones(1, 7, 8)}
        with pytest.raises(ValueError, match=f"weights.pth.*{said}.*--trained-frames and --trained-size"):
            trained_clip(state, Given(FILE, hints), [])


def test_a_cube_that_does_not_divide_the_usual_clip_asks_for_the_clip() -> None:
    with pytest.raises(ValueError, match=r"clip.frames 16 is not a multiple of the tubelet 3; give --trained-frames"):
        trained_clip(embedding(8, (3, 16, 16)), Given(FILE), [])
    assert math.prod(CLIP.grid(ViTSpec(width=8, heads=2, patch=8).cube)) == 8
