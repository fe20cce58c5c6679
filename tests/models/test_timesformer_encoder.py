"""TimeSformer: sizes, first weights, the class token, what a mask hides, clips of other sizes, recomputing, export."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tubelet.models.timesformer import AttentionKind, TimeSformer, TimeSformerSpec
from tubelet.spec import replace
from tubelet.types import ClipShape, Cube, Grid

SPEC = TimeSformerSpec.tiny()
CLIP = ClipShape(frames=4, size=32)
kinds = pytest.mark.parametrize("kind", ["divided", "joint", "space"])


def build(kind: AttentionKind = "divided", clip: ClipShape = CLIP, *, noise: float = 0.1) -> TimeSformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = replace(SPEC, attention=kind).build(clip, final_norm=True, masked=True)
        assert isinstance(encoder, TimeSformer)
        for value in encoder.parameters():
            value.data += noise * torch.randn_like(value)
        return encoder


def clips(frames: int = 4, size: int = 32) -> Tensor:
    fixed = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, frames, size, size), dtype=torch.uint8, generator=fixed)


@pytest.mark.parametrize(("kind", "millions"), [("divided", 121.6), ("joint", 86.1), ("space", 86.1)])
def test_published_sizes_have_their_parameters(kind: AttentionKind, millions: float) -> None:
    with torch.device("meta"):
        encoder = TimeSformer(TimeSformerSpec(attention=kind), ClipShape(frames=8), final_norm=True)
        head = torch.nn.Linear(768, 400)
    count = sum(value.numel() for part in (encoder, head) for value in part.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.005)
    assert encoder.spec.cube == Cube(1, 16, 16)
    assert encoder.out_grid == Grid(8, 14, 14)


@kinds
def test_tokens_are_in_raster_order_and_the_class_token_is_apart(kind: AttentionKind) -> None:
    encoder = build(kind)
    tokens, first = encoder.tokens_and_class(clips())
    assert torch.equal(tokens, encoder(clips()))
    assert (tokens.shape, first.shape) == ((2, 64, 32), (2, 32))
    other = clips().clone()
    other[:, :, 3, :8, :8] = 0  # the first patch of the last frame: token 48
    moved = (encoder(other) - tokens).abs().amax((0, 2))
    assert int(moved.argmax()) == 48


def test_attention_in_space_sees_one_frame_at_a_time() -> None:
    encoder = build("space")
    other = clips().clone()
    other[:, :, 3] = 0
    assert torch.equal(encoder(other)[:, :48], encoder(clips())[:, :48])


def test_attention_in_time_does_nothing_at_first() -> None:
    encoder = build(noise=0.0)
    assert all(not block.temporal_fc.weight.any() for block in encoder.blocks)  # type: ignore[union-attr,operator]
    assert encoder.time_embed is not None
    assert not encoder.time_embed.any()
    turned = clips().flip(2)
    tokens = encoder(clips()).unflatten(1, (4, -1))
    torch.testing.assert_close(encoder(turned).unflatten(1, (4, -1)).flip(1), tokens, atol=1e-2, rtol=0.0)


@kinds
def test_hidden_tokens_are_not_seen(kind: AttentionKind) -> None:
    encoder = build(kind)
    hidden = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    hidden[:, 1, 1:3] = True
    other = clips().clone()
    other[:, :, 2:, 8:24] = 0
    assert torch.equal(encoder(clips(), hidden=hidden), encoder(other, hidden=hidden))
    assert not torch.equal(encoder(clips()), encoder(other))


@kinds
def test_weights_for_clips_of_other_sizes_are_those_that_run_there(kind: AttentionKind) -> None:
    encoder, after = build(kind), ClipShape(frames=6, size=48)
    found = encoder.spec.stretched(encoder.state_dict(), CLIP, after)
    assert found.note.startswith("positions learnt for ")
    larger = found.spec.assemble(after, final_norm=True, masked=True)
    larger.load_state_dict(found.state, strict=True)
    assert torch.equal(larger(clips(6, 48)), encoder.with_class(clips(6, 48))[0])
    assert encoder.spec.stretched(encoder.state_dict(), CLIP, CLIP).note == ""
    with pytest.raises(ValueError, match=r"takes clips of \[T,H,W\]"):
        encoder(clips(6, 48))


@kinds
def test_layers_and_what_is_not_decayed(kind: AttentionKind) -> None:
    encoder = build(kind)
    of = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert {layer for name, layer in of.items() if "embed" in name or "token" in name} == {0}
    assert (of["blocks.1.norm1.weight"], of["norm.weight"], encoder.layers) == (2, 3, 3)
    spared = encoder.not_decayed()
    assert spared <= of.keys()
    assert ("time_embed" in spared) == (kind != "space")


@kinds
def test_recomputed_blocks_give_the_same_gradients(kind: AttentionKind) -> None:
    found = []
    for which in (False, 1, True):
        spec = replace(SPEC, attention=kind, drop_path=0.3, checkpointing=which)
        encoder = spec.assemble(CLIP, final_norm=True, masked=True).train()
        encoder.load_state_dict(build(kind).state_dict())
        with torch.random.fork_rng():
            torch.manual_seed(3)
            encoder(clips()).square().mean().backward()
        found.append([value.grad for value in encoder.parameters() if value.grad is not None])
    assert all(torch.equal(one, other) for kept in found[1:] for one, other in zip(found[0], kept, strict=True))


@kinds
def test_it_is_exported_for_any_batch_and_gives_the_same_numbers(kind: AttentionKind) -> None:
    encoder = build(kind).eval()
    with torch.no_grad():
        program = torch.export.export(encoder, (clips(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        for video in (clips(), clips()[:1]):
            assert torch.allclose(program.module()(video), encoder(video), atol=1e-5)


def test_mistakes_are_said() -> None:
    with pytest.raises(ValidationError, match="width 768 is not a multiple of heads 7"):
        TimeSformerSpec(heads=7)
    with pytest.raises(ValueError, match=r"clip\.size 30 is not a multiple of the patch 8"):
        build(clip=ClipShape(frames=4, size=30))
