"""The multiscale encoder: sizes, grids, what a mask hides, and that nothing waits for the device."""

import pytest
import torch
from pydantic import ValidationError

from tubelet.models.mvit import layers as pooling_attention
from tubelet.models.mvit.model import MVIT_B, MVIT_L, MVIT_S, MViT, MViTSpec, MViTStage, block_shapes
from tubelet.nn.pixels import cells_to_tokens
from tubelet.spec import replace
from tubelet.types import ClipShape, Cube, Grid

STAGES = (MViTStage(start=1), MViTStage(start=2))
SPEC = MViTSpec(width=8, depth=4, stages=STAGES, kv_stride=(1, 4, 4))
CLIP = ClipShape(frames=4, size=64)


def clips(size: int = 64) -> torch.Tensor:
    fixed = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 4, size, size), dtype=torch.uint8, generator=fixed)


def build(spec: MViTSpec = SPEC, clip: ClipShape = CLIP) -> MViT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = spec.build(clip, final_norm=False, masked=True)
    assert isinstance(encoder, MViT)
    return encoder


def test_grids_and_width_follow_from_the_spec() -> None:
    encoder = build()
    assert encoder.grid == Grid(2, 16, 16)
    assert encoder.out_grid == Grid(2, 4, 4) == CLIP.grid(SPEC.cube)
    assert SPEC.cube == Cube(2, 16, 16)
    assert encoder(clips()).shape == (2, 32, 32)
    assert encoder.with_class(clips()).shape == (2, 33, 32)


def test_a_fine_last_stage_keeps_the_grid_of_the_one_before() -> None:
    fine = replace(MVIT_S, last_stage_stride=1)
    assert (fine.cube, MVIT_S.cube) == (Cube(2, 16, 16), Cube(2, 32, 32))
    with torch.device("meta"):
        found, usual = MViT(fine, ClipShape()), MViT(MVIT_S, ClipShape())
    assert (found.out_grid, usual.out_grid) == (Grid(8, 14, 14), Grid(8, 7, 7))
    tables = {name: len(value) for name, value in found.named_parameters() if name.endswith("rel_pos_h")}
    theirs = {name: len(value) for name, value in usual.named_parameters() if name.endswith("rel_pos_h")}
    assert {name for name in tables if tables[name] != theirs[name]} == {"blocks.15.attention.relative.rel_pos_h"}
    assert (tables["blocks.15.attention.relative.rel_pos_h"], theirs["blocks.15.attention.relative.rel_pos_h"]) == (
        27,
        13,
    )


def test_keys_keep_one_grid_but_where_a_stage_starts() -> None:
    sides = [shape.pooling.kv_grid for shape in block_shapes(MVIT_S, ClipShape())]
    assert [block for block, side in enumerate(sides) if side == Grid(8, 14, 14)] == [1, 3, 14]
    assert {side for side in sides if side != Grid(8, 14, 14)} == {Grid(8, 7, 7)}


@pytest.mark.parametrize(
    ("spec", "clip", "classes", "millions"),
    [
        (MVIT_S, ClipShape(), 400, 34.5),
        (MVIT_B, ClipShape(frames=32), 400, 51.2),
        (replace(MVIT_S, widen_in="mlp"), ClipShape(), 400, 36.5),
        (replace(MVIT_L, widen_in="mlp"), ClipShape(), 400, 217.6),
        (MVIT_L, ClipShape(frames=40, size=312), 400, 213.4),  # their list says 217.6, the form that MLPs widen
    ],
    ids=["S", "B", "S of MaskFeat", "L of MaskFeat", "L"],
)
def test_sizes_have_the_published_number_of_parameters(
    spec: MViTSpec, clip: ClipShape, classes: int, millions: float
) -> None:
    with torch.device("meta"):
        encoder = MViT(spec, clip, final_norm=True, masked=False)
    count = sum(value.numel() for value in encoder.parameters()) + classes * (encoder.out_width + 1)
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize("cells", [(2, 16, 16), (2, 4, 4), (2, 2, 2), (1, 1, 1)])
def test_hidden_pixels_do_not_matter_but_for_what_overlaps_them(cells: tuple[int, int, int]) -> None:
    encoder, video = build(), clips()
    hidden = torch.ones(2, *cells, dtype=torch.bool)
    changed = 255 - video
    torch.testing.assert_close(encoder(changed, hidden=hidden), encoder(video, hidden=hidden))
    hidden[:, 0, 0, 0] = False
    assert not torch.equal(encoder(changed, hidden=hidden), encoder(video, hidden=hidden))


def test_a_cell_hides_exactly_its_tokens() -> None:
    encoder = build()
    hidden = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    hidden[0, 0, 1, 0] = True
    found = cells_to_tokens(hidden, encoder.grid).unflatten(1, tuple(encoder.grid))[0]
    expected = torch.zeros(2, 16, 16, dtype=torch.bool)
    expected[:, 8:, :8] = True
    assert torch.equal(found, expected)


def test_bytes_and_floats_in_the_same_range_agree() -> None:
    encoder = build()
    assert torch.equal(encoder(clips().float()), encoder(clips()))


@pytest.mark.parametrize("changes", [{}, {"class_token": False, "absolute_positions": True, "widen_in": "mlp"}])
def test_every_parameter_learns(changes: dict[str, object]) -> None:
    spec = MViTSpec.model_validate({**SPEC.model_dump(), **changes})
    encoder = build(spec)
    hidden = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.4
    encoder(clips(), hidden=hidden).square().sum().backward()
    still = [name for name, value in encoder.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


def test_the_plain_attention_gives_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = build()(clips())
    monkeypatch.setattr(pooling_attention, "attend_fused", pooling_attention.attend_plain)
    torch.testing.assert_close(build()(clips()), fused, atol=1e-5, rtol=1e-4)


def test_bf16_on_the_cpu_is_near_float32() -> None:
    encoder = build()
    exact = encoder(clips())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(clips())
    rounded.float().square().sum().backward()
    assert float(((rounded - exact).norm() / exact.norm()).detach()) < 0.02
    assert all(value.grad is not None and value.grad.isfinite().all() for value in encoder.blocks.parameters())


@pytest.mark.parametrize("widen_in", ["attention", "mlp"])
def test_tokens_between_blocks_stay_in_float32_under_autocast(widen_in: str) -> None:
    """As in a ViT: sums of many blocks would lose their small terms in bf16."""
    encoder = build(MViTSpec.model_validate({**SPEC.model_dump(), "widen_in": widen_in}))
    seen: list[torch.dtype] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda _module, inputs, output: seen.extend([inputs[0].dtype, output.dtype]))
    with torch.autocast("cpu", torch.bfloat16):
        encoder(clips())
    assert set(seen) == {torch.float32}


def test_checkpointing_changes_neither_output_nor_gradient() -> None:
    found = []
    for checkpointing in (False, True):
        encoder = build(replace(SPEC, drop_path=0.5, checkpointing=checkpointing))
        with torch.random.fork_rng():
            torch.manual_seed(1)
            tokens = encoder(clips())
            tokens.square().sum().backward()
        found.append((tokens.detach(), encoder.patch_embed.weight.grad))
    torch.testing.assert_close(found[0], found[1])


def test_odd_grids_are_rounded_up_and_tables_follow() -> None:
    clip = ClipShape(frames=4, size=28)  # 7, 4 and 2 tokens down; tables reckoned with 7, 3 and 1
    encoder = build(clip=clip)
    assert encoder.out_grid == Grid(2, 2, 2)
    assert encoder(clips(28)).isfinite().all()
    assert [len(encoder.get_parameter(f"blocks.{i}.attention.relative.rel_pos_h")) for i in range(4)] == [13, 5, 5, 1]


def test_the_forward_never_asks_the_device_for_a_value() -> None:
    """On the meta device there is no value to ask for: any `.item()` or data-dependent shape would raise."""
    with torch.device("meta"):
        encoder = MViT(replace(SPEC, drop_path=0.2), CLIP)
        video, hidden = clips().to("meta"), torch.zeros(2, 2, 4, 4, dtype=torch.bool, device="meta")
    encoder(video, hidden=hidden).sum().backward()


def test_everything_moves_with_the_module_and_only_weights_are_saved() -> None:
    encoder = build().to("meta")
    assert {value.device.type for value in (*encoder.parameters(), *encoder.buffers())} == {"meta"}
    assert set(encoder.state_dict()) == {name for name, _ in encoder.named_parameters()}


def test_first_weights_are_the_authors() -> None:
    encoder = build()
    for name, size in (("blocks.0.mlp.fc1.bias", 32), ("blocks.0.norm1.bias", 8)):
        assert torch.equal(encoder.get_parameter(name), torch.full((size,), 0.02))
    assert float(encoder.patch_embed.weight.detach().std()) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 3, 4, 32, 32), (1, 3, 2, 64, 64)])
def test_clips_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the model takes clips of \[T,H,W\] \(4, 64, 64\), got"):
        build()(torch.zeros(shape, dtype=torch.uint8))


def test_a_mask_that_does_not_divide_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a mask of \(2, 7, 7\) cells does not divide \(2, 16, 16\) tokens"):
        build()(clips(), hidden=torch.zeros(2, 2, 7, 7, dtype=torch.bool))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": [{"start": 2}, {"start": 1}]}, "must rise"),
        ({"stages": [{"start": 4}]}, "below the depth 4"),
        ({"stages": [{"start": 0}], "widen_in": "mlp"}, "no MLP is before block 0"),
        ({"heads": 3}, "width 8 of a stage is not a multiple of its heads 3"),
        ({"stages": [], "last_stage_stride": 1}, "there are no stages"),
    ],
)
def test_specs_that_make_no_model_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MViTSpec.model_validate({**SPEC.model_dump(), **changes})


def test_limits_of_clip_and_patch() -> None:
    with pytest.raises(ValueError, match="size 30 is not a multiple of the patch 4"):
        build(clip=ClipShape(frames=4, size=30))
    with pytest.raises(ValueError, match="choose padding = kernel // 2"):
        build(replace(SPEC, patch_padding=(1, 0, 0)))
