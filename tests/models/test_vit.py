"""The encoder sees what it is told to see, and nothing else."""

import pytest
import torch
from pydantic import ValidationError

from tubelet.models.vit import ViT, ViTSpec
from tubelet.types import ClipShape, Cube, Grid

SPEC = ViTSpec(width=24, depth=2, heads=3, patch=8)
CLIP = ClipShape(frames=4, size=24)


def clips() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 4, 24, 24), dtype=torch.uint8)


def seen() -> torch.Tensor:
    return torch.tensor([[0, 4, 17], [1, 2, 9]])


def test_grid_follows_from_size_and_cube() -> None:
    assert ViT(SPEC, CLIP, final_norm=True).grid == Grid(2, 3, 3)
    assert SPEC.cube == Cube(2, 8, 8)


def test_all_tokens_in_raster_order_is_the_same_as_no_choice() -> None:
    encoder, video = ViT(SPEC, CLIP, final_norm=True), clips()
    everything = torch.arange(18).expand(2, -1)
    torch.testing.assert_close(encoder(video, everything), encoder(video))


def test_hidden_pixels_do_not_matter() -> None:
    encoder, video = ViT(SPEC, CLIP, final_norm=True), clips()
    changed = video.clone()
    changed[0, :, 0:2, 8:16, 0:8] += 1  # token 3, hidden in clip 0
    assert torch.equal(encoder(changed, seen()), encoder(video, seen()))
    changed[0, :, 0:2, 8:16, 8:16] += 1  # token 4, seen
    assert not torch.equal(encoder(changed, seen())[0], encoder(video, seen())[0])


def test_order_of_seen_tokens_permutes_the_output() -> None:
    encoder, video = ViT(SPEC, CLIP, final_norm=True), clips()
    turned = encoder(video, seen().flip(1)).flip(1)
    torch.testing.assert_close(turned, encoder(video, seen()), atol=1e-5, rtol=1e-5)


def test_bytes_and_floats_in_the_same_range_agree() -> None:
    encoder, video = ViT(SPEC, CLIP, final_norm=True), clips()
    assert torch.equal(encoder(video.float(), seen()), encoder(video, seen()))


def test_checkpointing_changes_neither_output_nor_gradient() -> None:
    """All blocks, or the first of two: bit for bit."""
    video = clips()
    found = []
    for checkpointing in (False, True, 1):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            spec = ViTSpec(width=24, depth=2, heads=3, patch=8, drop_path=0.5, checkpointing=checkpointing)
            encoder = ViT(spec, CLIP, final_norm=True)
            tokens = encoder(video, seen())
            tokens.square().sum().backward()
        found.append((tokens.detach(), *(value.grad for value in encoder.parameters())))
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=0, atol=0)


@pytest.mark.parametrize(("checkpointing", "twice"), [(False, 0), (0, 0), (1, 1), (2, 2), (9, 3), (True, 3)])
def test_so_many_blocks_run_again_in_backward(checkpointing: bool | int, twice: int) -> None:
    spec = ViTSpec(width=24, depth=3, heads=3, patch=8, checkpointing=checkpointing)
    encoder, calls = ViT(spec, CLIP, final_norm=True), list[int]()
    for number in range(3):
        norm = encoder.get_submodule(f"blocks.{number}.norm1")
        norm.register_forward_hook(lambda *_, number=number: calls.append(number))
    encoder(clips()).sum().backward()
    assert sorted(calls) == sorted([0, 1, 2, *range(twice)])
    encoder.eval()(clips())
    assert len(calls) == 6 + twice


def test_positions_are_saved_only_where_learnt() -> None:
    assert "pos_embed" not in ViT(SPEC, CLIP, final_norm=True).state_dict()
    learnt = ViT(ViTSpec(width=24, depth=1, heads=3, patch=8, learnable_positions=True), CLIP, final_norm=False)
    assert learnt.state_dict()["pos_embed"].shape == (1, 18, 24)
    learnt(clips()).sum().backward()
    assert learnt.pos_embed.grad is not None


def test_everything_moves_with_the_module() -> None:
    encoder = ViT(SPEC, CLIP, final_norm=True).to("meta")
    assert {value.device.type for value in (*encoder.parameters(), *encoder.buffers())} == {"meta"}


@pytest.mark.parametrize("shape", [(1, 3, 4, 16, 16), (1, 3, 2, 24, 24)])
def test_clips_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the model takes clips of \[T,H,W\] \(4, 24, 24\), got"):
        ViT(SPEC, CLIP, final_norm=True)(torch.zeros(shape, dtype=torch.uint8))


def test_limits() -> None:
    with pytest.raises(ValidationError, match="width 24 is not a multiple of heads 5"):
        ViTSpec(width=24, heads=5)
    with pytest.raises(ValueError, match="size 20 is not a multiple of the patch 8"):
        ViT(SPEC, ClipShape(frames=4, size=20), final_norm=True)


@pytest.mark.parametrize(
    ("spec", "millions"),
    [
        (ViTSpec(width=384, heads=6), 21.88),
        (ViTSpec(), 86.23),
        (ViTSpec(width=1024, depth=24, heads=16), 303.86),
        (ViTSpec(width=1280, depth=32, heads=16), 631.61),
    ],
    ids=["S", "B", "L", "H"],
)
def test_sizes_have_the_published_number_of_parameters(spec: ViTSpec, millions: float) -> None:
    with torch.device("meta"):
        encoder = ViT(spec, ClipShape(), final_norm=True)
    assert round(sum(value.numel() for value in encoder.parameters()) / 1e6, 2) == millions
