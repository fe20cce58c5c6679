"""Pooling attention: the fused form is the plain one, relative positions count distances, pooling keeps its place."""

import pytest
import torch
from torch import nn

from tubelet.nn.cpu import depthwise
from tubelet.models.mvit.layers import Pool, Pooling, PoolingAttention, attend_fused, attend_plain, pooled_grid
from tubelet.models.mvit.layers import PoolingBlock, pool_skip
from tubelet.models.mvit.layers import RelativePositions, distances, places, stretch_rows
from tubelet.types import Grid

POOLING = Pooling(
    grid=Grid(2, 6, 6), kernel=(3, 3, 3), q_stride=(1, 2, 2), kv_stride=(1, 3, 3), rows=(3, 5, 5), residual=True
)


def inputs(dtype: torch.dtype, *, queries: int = 19, keys: int = 9) -> list[torch.Tensor]:
    fixed = torch.Generator().manual_seed(0)
    shapes = [(2, 3, queries, 8), (2, 3, keys, 8), (2, 3, keys, 8), (2, 3, queries, 6)]
    drawn = [torch.randn(shape, generator=fixed).to(dtype).requires_grad_() for shape in shapes]
    key_places = torch.cat([torch.zeros(1, 6), places(Grid(2, 2, 2), [0, 1, 2])])
    return [*drawn, key_places]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("keys", [9, 400])
def test_fused_attention_is_the_plain_one_and_so_are_its_gradients(
    dtype: torch.dtype, tolerance: float, keys: int
) -> None:
    found = []
    for attend in (attend_plain, attend_fused):
        q, k, v, answers, key_places = inputs(dtype, keys=keys)
        key_places = key_places.repeat(keys // 9 + 1, 1)[:keys]
        mixed = attend(q, k, v, answers, key_places)
        assert mixed.dtype == dtype
        mixed.float().square().sum().backward()
        found.append([mixed.detach(), *[one.grad for one in (q, k, v, answers)]])
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, atol=tolerance * float(plain.abs().max()), rtol=tolerance)


def test_without_relative_positions_it_is_softmax_attention() -> None:
    q, k, v, answers, key_places = inputs(torch.float32)
    found = attend_fused(q, k, v, answers[..., :0], key_places[:, :0])
    torch.testing.assert_close(found, nn.functional.scaled_dot_product_attention(q, k, v))


def test_distances_count_from_the_farthest_key_behind_in_steps_of_the_finer_grid() -> None:
    assert distances(2, 2).tolist() == [[1, 0], [2, 1]]
    assert distances(4, 2).tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]]
    assert distances(2, 4).tolist() == [[3, 2, 1, 0], [5, 4, 3, 2]]
    assert int(distances(3, 4).max()) <= 2 * 4 - 2


def test_relative_positions_add_what_each_axis_says_of_the_distance() -> None:
    q_grid, kv_grid = Grid(2, 4, 2), Grid(2, 2, 2)
    relative = RelativePositions(5, q_grid, kv_grid, rows=(3, 7, 3))
    q = torch.randn(1, 2, q_grid.tokens, 5)
    bias = (relative(q) @ relative.places.mT).unflatten(2, tuple(q_grid)).unflatten(-1, tuple(kv_grid))
    asks = q.unflatten(2, tuple(q_grid))[0, 1, 1, 3, 0]
    t, h, w = (relative.get_parameter(f"rel_pos_{axis}") for axis in "thw")
    expected = asks @ (t[1 - 0 + 1] + h[3 - 1 * 2 + 2] + w[0 - 1 + 1])
    torch.testing.assert_close(bias[0, 1, 1, 3, 0, 0, 1, 1], expected)


def test_tables_of_another_length_are_interpolated() -> None:
    table = torch.arange(5.0).unsqueeze(1)
    assert torch.equal(stretch_rows(table, 5), table)
    torch.testing.assert_close(stretch_rows(table, 10)[:, 0].diff(), torch.tensor([0.25] + [0.5] * 7 + [0.25]))
    long = RelativePositions(4, Grid(1, 4, 4), Grid(1, 2, 2), rows=(0, 13, 13))
    assert long(torch.randn(1, 1, 16, 4)).shape == (1, 1, 16, 4)


def test_pooling_is_a_convolution_shared_by_the_heads_and_the_class_token_is_only_normed() -> None:
    pool, grid = Pool(4, (3, 3, 3), (1, 2, 2), norm_eps=1e-6), Grid(2, 5, 5)
    tokens = torch.randn(2, 1 + grid.tokens, 12)
    found = pool(tokens, grid)
    assert found.shape == (2, 3, 1 + pooled_grid(grid, (3, 3, 3), (1, 2, 2)).tokens, 4)
    head = tokens[:, 1:, 4:8].mT.unflatten(2, tuple(grid))
    plain = nn.functional.conv3d(head, pool.weight, None, (1, 2, 2), 1, 1, 4).flatten(2).mT
    torch.testing.assert_close(found[:, 1, 1:], pool.norm(plain))
    torch.testing.assert_close(found[:, 2, 0], pool.norm(tokens[:, 0, 8:]))


def test_bf16_on_a_cpu_pools_in_float32() -> None:
    pool, grid = Pool(4, (3, 3, 3), (1, 1, 1), norm_eps=1e-6), Grid(2, 4, 4)
    tokens = torch.randn(1, grid.tokens, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = pool(tokens.bfloat16(), grid)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, pool(tokens.bfloat16().float(), grid).bfloat16())


def test_the_grid_is_rounded_up_where_a_stride_does_not_divide_it() -> None:
    assert pooled_grid(Grid(3, 7, 6), (3, 3, 3), (1, 2, 4)) == Grid(3, 4, 2)


@pytest.mark.parametrize("first", [0, 1])
def test_the_skip_takes_the_largest_neighbour(first: int) -> None:
    grid = Grid(1, 4, 4)
    tokens = torch.cat([torch.full((1, first, 1), 9.0), torch.arange(16.0).view(1, 16, 1)], dim=1)
    found = pool_skip(tokens, grid, (1, 2, 2))
    assert found[0, first:, 0].tolist() == [5.0, 7.0, 13.0, 15.0]
    assert found[0, :first, 0].tolist() == [9.0] * first
    assert pool_skip(tokens, grid, (1, 1, 1)) is tokens


def block(*, width_in: int, attention: int, width: int) -> PoolingBlock:
    inner = PoolingAttention(POOLING, width_in=width_in, width=attention, heads=2, norm_eps=1e-6)
    return PoolingBlock(inner, width=width, mlp_ratio=2.0, drop_path=0.0, norm_eps=1e-6)


@pytest.mark.parametrize(("width_in", "attention", "width"), [(8, 8, 8), (8, 16, 16), (8, 8, 16)])
def test_a_block_may_widen_in_attention_or_in_its_mlp(width_in: int, attention: int, width: int) -> None:
    one = block(width_in=width_in, attention=attention, width=width)
    tokens = torch.randn(2, 1 + 72, width_in)
    assert one(tokens).shape == (2, 1 + 18, width)
    assert (one.proj is None) == (width_in == width)


def test_residual_pooling_adds_queries_to_all_but_the_class_token() -> None:
    attention = block(width_in=8, attention=8, width=8).attention
    plain = PoolingAttention(
        Pooling(POOLING.grid, POOLING.kernel, POOLING.q_stride, POOLING.kv_stride, POOLING.rows, residual=False),
        width_in=8, width=8, heads=2, norm_eps=1e-6,
    )  # fmt: skip
    plain.load_state_dict(attention.state_dict())
    tokens = torch.randn(1, 73, 8)
    difference = attention(tokens) - plain(tokens)
    assert float(difference[:, 0].abs().max().detach()) == 0.0
    assert float(difference[:, 1:].abs().min(-1).values.max().detach()) > 0.0


def test_a_stride_that_the_skip_cannot_follow_is_refused() -> None:
    odd = Pooling(grid=Grid(1, 6, 6), kernel=(3, 3, 3), q_stride=(1, 3, 3), kv_stride=(1, 1, 1))
    inner = PoolingAttention(odd, width_in=8, width=8, heads=1, norm_eps=1e-6)
    with pytest.raises(ValueError, match="choose a stride of 1, 2 or 4"):
        PoolingBlock(inner, width=8, mlp_ratio=2.0, drop_path=0.0, norm_eps=1e-6)


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 4, 4)])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 5, 3), (2, 2, 2)])
def test_the_quick_gradient_of_pooling_is_that_of_the_convolution(
    stride: tuple[int, int, int], kernel: tuple[int, int, int]
) -> None:
    fixed = torch.Generator().manual_seed(0)
    found = []
    for quick in (True, False):
        fixed.manual_seed(0)
        video = torch.randn(2, 4, 3, 7, 6, generator=fixed).requires_grad_()
        weight = torch.randn(4, 1, *kernel, generator=fixed).requires_grad_()
        padding = tuple(side // 2 for side in kernel)
        plain = nn.functional.conv3d(video, weight, None, stride, padding, 1, 4)
        out = depthwise(video, weight, stride) if quick else plain
        out.square().sum().backward()
        found.append([out.detach(), video.grad, weight.grad])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
