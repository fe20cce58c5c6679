"""Video Swin: sizes, stages, images, what a mask hides, layers, windows of other sizes, recomputing, export."""

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tubelet.models.swin.layers import PatchEmbed
from tubelet.models.swin.model import SWIN_B, SWIN_L, SWIN_S, SWIN_T, Swin, SwinSpec, SwinStage
from tubelet.spec import replace
from tubelet.types import ClipShape, Cube, Grid

SPEC = SwinSpec.tiny()
CLIP = ClipShape(frames=4, size=64)


def build(spec: SwinSpec = SPEC, clip: ClipShape = CLIP) -> Swin:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = spec.build(clip, final_norm=True, masked=True)
        assert isinstance(encoder, Swin)
        for value in encoder.parameters():
            value.data += 0.05 * torch.randn_like(value)
        return encoder


def image_embedding(spec: SwinSpec = SPEC) -> PatchEmbed:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return PatchEmbed(spec.width, Cube(1, spec.patch, spec.patch), normed=True, norm_eps=spec.norm_eps)


def clips(frames: int = 4, size: int = 64) -> Tensor:
    fixed = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, frames, size, size), dtype=torch.uint8, generator=fixed)


@pytest.mark.parametrize(
    ("spec", "millions"), [(SWIN_T, 28.2), (SWIN_S, 49.8), (SWIN_B, 88.0), (SWIN_L, 197.0)], ids="TSBL"
)
def test_published_sizes_have_their_parameters(spec: SwinSpec, millions: float) -> None:
    with torch.device("meta"):
        encoder = Swin(spec, ClipShape(frames=32), final_norm=True)
        head = torch.nn.Linear(encoder.out_width, 400)
    count = sum(value.numel() for part in (encoder, head) for value in part.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)
    assert (encoder.grid, encoder.out_grid) == (Grid(16, 56, 56), Grid(16, 7, 7))
    assert spec.cube == Cube(2, 32, 32)
    assert all(width == 32 * heads for width, heads in zip(spec.stage_widths, spec.stage_heads, strict=True))


def test_stages_give_their_grids_and_widths() -> None:
    encoder = build()
    found = encoder.stage_tokens(clips())
    grids = SPEC.stage_grids(encoder.grid)
    assert grids == (Grid(2, 16, 16), Grid(2, 8, 8), Grid(2, 4, 4))
    assert [tuple(one.shape) for one in found] == [(2, 512, 16), (2, 128, 32), (2, 32, 64)]
    assert torch.equal(encoder.norm(found[-1]), encoder(clips()))


def test_other_sizes_are_padded() -> None:
    encoder = build()
    found = encoder.stage_tokens(torch.rand(1, 3, 3, 37, 50))
    assert [one.shape[1] for one in found] == [2 * 10 * 13, 2 * 5 * 7, 2 * 3 * 4]
    with pytest.raises(ValueError, match=r"takes clips of \[T,H,W\] \(4, 64, 64\), got \(3, 64, 64\)"):
        encoder(clips(frames=3))


def test_hidden_tokens_are_not_seen() -> None:
    encoder = build()
    hidden = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    hidden[:, 1, 1:3] = True
    other = clips().clone()
    other[:, :, 2:, 16:48] = 0
    assert torch.equal(encoder(clips(), hidden=hidden), encoder(other, hidden=hidden))
    assert not torch.equal(encoder(clips()), encoder(other))
    fine = hidden.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(encoder(clips(), hidden=hidden), encoder(clips(), hidden=fine))
    with pytest.raises(ValueError, match=r"a mask of \(2, 3, 3\) cells does not divide \(2, 16, 16\) tokens"):
        encoder(clips(), hidden=torch.zeros(2, 2, 3, 3, dtype=torch.bool))


@pytest.mark.parametrize("rule", ["clamped", "released"])
def test_an_image_moves_the_tables_in_their_rows_of_no_distance_in_time_alone(rule: str) -> None:
    spec = SwinSpec.model_validate({**SPEC.model_dump(), "window_rule": rule, "window": (2, 2, 2)})
    encoder, embed = build(spec), image_embedding(spec)
    hidden = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    hidden[:, :, 2:5] = True
    found = encoder.stage_tokens(clips()[:, :, :1], hidden=hidden, embed=embed)
    assert [one.shape[1] for one in found] == [256, 64, 16]
    torch.stack([one.square().sum() for one in found]).sum().backward()
    assert embed.weight.grad is not None
    assert encoder.patch_embed.weight.grad is None
    assert encoder.mask_token is not None
    assert encoder.mask_token.grad is not None
    tables = [value.grad for name, value in encoder.named_parameters() if name.endswith("attention.table")]
    assert len(tables) == spec.depth
    for gradient in tables:
        assert gradient is not None
        rows = gradient.unflatten(0, (3, 9))
        assert rows[1].any()
        assert not rows[[0, 2]].any()


def test_rules_differ_for_an_image_and_not_for_a_clip() -> None:
    clamped, released = (
        build(replace(SPEC, window=(2, 4, 4))),
        build(SwinSpec.model_validate({**SPEC.model_dump(), "window": (2, 4, 4), "window_rule": "released"})),
    )
    assert torch.equal(clamped(clips()), released(clips()))
    image, embed = clips()[:, :, :1], image_embedding()
    assert not torch.equal(clamped.stage_tokens(image, embed=embed)[-1], released.stage_tokens(image, embed=embed)[-1])


def test_layers_are_those_that_bevt_is_fine_tuned_by() -> None:
    with torch.device("meta"):
        encoder = Swin(SWIN_B, ClipShape(), final_norm=True, masked=True)
    assert encoder.layers == 28
    of = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert {of["patch_embed.weight"], of["patch_embed.norm.bias"], of["mask_token"]} == {0}
    blocks = [of[f"stages.{stage}.blocks.{block}.norm1.weight"] for stage, block in ((0, 0), (0, 1), (1, 0), (2, 17))]
    assert blocks == [1, 2, 4, 24]
    merges = [of[f"stages.{stage}.merge.reduction.weight"] for stage in range(3)]
    assert merges == [3, 6, 25]
    assert (of["stages.3.blocks.1.attention.table"], of["norm.weight"]) == (27, 27)
    assert set(of.values()) == set(range(28))


def test_tables_are_not_decayed_and_grow_with_the_window() -> None:
    encoder = build()
    assert encoder.not_decayed() == {name for name, _ in encoder.named_parameters() if name.endswith("attention.table")}
    assert len(encoder.not_decayed()) == SPEC.depth
    grown = SPEC.with_window(encoder.state_dict(), (4, 3, 3))
    assert grown.note == "tables of relative positions are stretched from windows of 2 x 3 x 3 tokens to 4 x 3 x 3"
    wider = grown.spec.assemble(ClipShape(frames=8, size=64), final_norm=True, masked=True)
    wider.load_state_dict(grown.state, strict=True)
    assert wider(clips(frames=8)).shape == (2, 64, 64)
    assert SPEC.with_window(encoder.state_dict(), SPEC.window).note == ""


def test_recomputed_blocks_give_the_same_gradients() -> None:
    plain = build(replace(SPEC, drop_path=0.3)).train()
    found = []
    for which in (False, 2, True):
        encoder = build(replace(SPEC, drop_path=0.3, checkpointing=which)).train()
        encoder.load_state_dict(plain.state_dict())
        with torch.random.fork_rng():
            torch.manual_seed(3)
            encoder(clips()).square().mean().backward()
        found.append([value.grad for value in encoder.parameters() if value.grad is not None])
    assert all(torch.equal(one, other) for kept in found[1:] for one, other in zip(found[0], kept, strict=True))


def test_a_copy_and_a_move_keep_their_windows() -> None:
    encoder = build()
    wanted = encoder.stage_tokens(clips(frames=6))[-1]  # makes windows of a second grid
    assert torch.equal(copy.deepcopy(encoder).stage_tokens(clips(frames=6))[-1], wanted)
    assert not any("windows" in name for name in encoder.state_dict())


def test_windows_made_while_looking_serve_in_training() -> None:
    encoder = build()
    with torch.inference_mode():
        encoder.stage_tokens(clips(frames=6))
    encoder.stage_tokens(clips(frames=6))[-1].square().sum().backward()
    assert encoder.patch_embed.weight.grad is not None


def test_bf16_stays_near() -> None:
    encoder = build()
    exact = encoder(clips())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = encoder(clips())
        near.float().square().mean().backward()
    assert near.dtype == torch.float32
    assert float((near - exact).detach().abs().max() / exact.detach().abs().max()) < 0.05
    assert encoder.patch_embed.weight.grad is not None


def test_it_is_exported_for_any_batch_and_gives_the_same_numbers() -> None:
    encoder = build().eval()
    with torch.no_grad():
        program = torch.export.export(encoder, (clips(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        for video in (clips(), clips()[:1]):
            assert torch.allclose(program.module()(video), encoder(video), atol=1e-5)


def test_mistakes_are_said() -> None:
    with pytest.raises(ValidationError, match="stages start at blocks"):
        SwinSpec(stages=(SwinStage(start=3), SwinStage(start=3)))
    with pytest.raises(ValidationError, match="stages start at blocks"):
        SwinSpec(depth=10)
    with pytest.raises(ValidationError, match="width 96 of a stage is not a multiple of its heads 5"):
        SwinSpec(heads=5)
    with pytest.raises(ValueError, match=r"clip\.size 30 is not a multiple of the patch 4"):
        build(SPEC, ClipShape(frames=4, size=30))
